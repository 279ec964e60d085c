"""Products by id: found through the index, read from the mapped file, reloaded when they change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from esci_tournament.deployments.scorer.catalogue import ProductCatalogue, Text, import_products, text_version
from esci_tournament.registry.errors import DataError, StoreError
from esci_tournament.tasks.data.layout import PRODUCTS_FILE
from esci_tournament.tasks.data.load import load_esci
from esci_tournament.tasks.data.store import write_frame


def frame(**columns) -> pd.DataFrame:
    whole = {"product_id": ["A", "B", "A"], "locale": pd.Categorical(["us", "us", "es"]), "title": ["a", "ü", "タ"]}
    whole |= {name: [""] * 3 for name in ("brand", "color", "bullets", "description")}
    return pd.DataFrame(whole | columns)


def test_a_product_is_found_by_id_and_locale(tmp_path):
    write_frame(frame(), tmp_path / "products.arrow")
    catalogue = ProductCatalogue.open(tmp_path / "products.arrow", tmp_path / "indices")
    assert catalogue.find("us", ["B", "A", "C"]).tolist() == [1, 0, -1]
    assert catalogue.find("es", ["A", "B"]).tolist() == [2, -1]
    assert catalogue.texts([2, 1]) == [Text("A", "タ", "", "", "", ""), Text("B", "ü", "", "", "", "")]
    assert catalogue.versions(np.array([1])).tolist() == [text_version(Text("B", "ü", "", "", "", ""))]


def test_rows_are_right_across_the_chunks_of_a_large_file(tmp_path):
    number = 150_000  # feather writes chunks of 65,536 rows
    large = pd.DataFrame({"product_id": [f"P{row}" for row in range(number)], "locale": "us"})
    for name in ("title", "brand", "color", "bullets", "description"):
        large[name] = [f"{name} {row}" for row in range(number)]
    write_frame(large, tmp_path / "products.arrow")
    catalogue = ProductCatalogue.open(tmp_path / "products.arrow", tmp_path / "indices")
    rows = [0, 65_535, 65_536, 131_072, number - 1]
    assert catalogue.find("us", [f"P{row}" for row in rows]).tolist() == rows
    assert [text.description for text in catalogue.texts(rows)] == [f"description {row}" for row in rows]


def test_the_index_is_built_once_and_again_when_the_file_is_another(tmp_path):
    path, indices = tmp_path / "products.arrow", tmp_path / "indices"
    write_frame(frame(), path)
    ProductCatalogue.open(path, indices)
    built = next(indices.glob("*/keys.npy")).stat().st_mtime_ns
    ProductCatalogue.open(path, indices)
    assert next(indices.glob("*/keys.npy")).stat().st_mtime_ns == built
    path.unlink()
    write_frame(frame(product_id=["A", "Z", "A"]), path)
    assert ProductCatalogue.open(path, indices).find("us", ["Z", "B"]).tolist() == [1, -1]
    assert len(list(indices.iterdir())) == 1


def test_a_damaged_index_is_built_again(tmp_path):
    path, indices = tmp_path / "products.arrow", tmp_path / "indices"
    write_frame(frame(), path)
    ProductCatalogue.open(path, indices)
    rows = next(indices.glob("*/rows.npy"))
    rows.write_bytes(rows.read_bytes()[:-1] + b"\x07")
    assert ProductCatalogue.open(path, indices).find("us", ["B"]).tolist() == [1]


def test_an_official_folder_gives_the_same_products_as_a_loaded_one(tiny_world: Path, tmp_path):
    catalogue = ProductCatalogue.open(import_products(tiny_world, tmp_path), tmp_path)
    products = load_esci(tiny_world).products
    rows = catalogue.find("jp", products["product_id"][products["locale"] == "jp"].tolist())
    assert rows.tolist() == np.flatnonzero(products["locale"] == "jp").tolist()
    assert [text.title for text in catalogue.texts(rows)] == products["title"].iloc[rows].tolist()
    assert import_products(tiny_world, tmp_path) == import_products(tiny_world, tmp_path)


def test_a_folder_of_part_files_gives_the_same_products(tiny_world: Path, tmp_path: Path):
    table = pq.read_table(tiny_world / PRODUCTS_FILE)
    (tmp_path / "parts" / PRODUCTS_FILE).mkdir(parents=True)
    for number, start in enumerate(range(0, table.num_rows, 100)):
        part = tmp_path / "parts" / PRODUCTS_FILE / f"part-{number}.parquet"
        pq.write_table(
            table.slice(start, 100).cast(pa.schema([(one, pa.binary()) for one in table.column_names])), part
        )
    found = import_products(tmp_path / "parts", tmp_path)
    assert feather.read_table(found).equals(feather.read_table(import_products(tiny_world, tmp_path)))
    pq.write_table(table.slice(0, 50), part)
    assert import_products(tmp_path / "parts", tmp_path) != found


def test_a_folder_without_products_is_named(tmp_path):
    with pytest.raises(DataError, match=PRODUCTS_FILE):
        import_products(tmp_path, tmp_path / "kept")
    (tmp_path / "products.arrow").write_bytes(b"nothing of the kind")
    with pytest.raises(StoreError, match=r"products\.arrow"):
        ProductCatalogue.open(tmp_path / "products.arrow", tmp_path / "indices")


def test_an_empty_catalogue_knows_nobody():
    assert ProductCatalogue.empty().find("us", ["A"]).tolist() == [-1]
