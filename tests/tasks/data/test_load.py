"""Loading: the same content gives the same version, however the file encodes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esci_tournament.registry.labels import LABELS
from esci_tournament.tasks.data.dataset import PAIR_COLUMNS, PRODUCT_COLUMNS, Dataset, query_key
from esci_tournament.tasks.data.fingerprint import ColumnFingerprint
from esci_tournament.tasks.data.layout import EVENTS_FILE, EXAMPLES_FILE, PRODUCTS_FILE
from esci_tournament.tasks.data.load import load_esci


def rewritten(source: Path, target: Path, change: dict | None = None, **options: object) -> Path:
    """Copy a world file by file through Arrow, with a change of each table and options of the writer."""
    target.mkdir()
    for name in (EXAMPLES_FILE, PRODUCTS_FILE, EVENTS_FILE):
        table = pq.read_table(source / name)
        pq.write_table((change or {}).get(name, lambda same: same)(table), target / name, **options)
    return target


def test_pairs_have_the_columns_of_the_contract(tiny_dataset: Dataset) -> None:
    pairs, products = tiny_dataset.pairs, tiny_dataset.products
    assert tuple(pairs.columns) == PAIR_COLUMNS
    assert tuple(products.columns) == PRODUCT_COLUMNS
    expected = {"example_id": "int64", "query_id": "int64", "query_key": "uint64", "product": "int32", "label": "int8"}
    assert {name: str(pairs[name].dtype) for name in expected} == expected
    assert isinstance(pairs.index, pd.RangeIndex)


def test_text_stays_in_arrow(tiny_dataset: Dataset) -> None:
    for series in (tiny_dataset.pairs["query"], tiny_dataset.products["title"], tiny_dataset.products["description"]):
        assert series.dtype.storage == "pyarrow"


def test_rows_agree_with_the_files(tiny_world: Path, tiny_dataset: Dataset) -> None:
    pairs = tiny_dataset.pairs
    raw = pq.read_table(tiny_world / EXAMPLES_FILE).to_pandas()
    products = pq.read_table(tiny_world / PRODUCTS_FILE).to_pandas()
    assert [LABELS[code] for code in pairs["label"]] == raw["esci_label"].tolist()
    assert pairs["query_key"][5] == query_key(raw["query"][5], raw["product_locale"][5])
    joined = tiny_dataset.products.iloc[pairs["product"]]
    assert (joined["product_id"].to_numpy() == raw["product_id"].to_numpy()).all()
    assert (joined["locale"].to_numpy() == raw["product_locale"].to_numpy()).all()
    assert (tiny_dataset.products["brand"] == products["product_brand"].fillna("")).all()


def test_events_name_products_of_their_locale(tiny_dataset: Dataset) -> None:
    events = tiny_dataset.events
    joined = tiny_dataset.products.iloc[events["product"]]
    assert (joined["locale"].to_numpy() == events["locale"].to_numpy()).all()
    assert str(events["time"].dtype) == "datetime64[us]"


def test_a_folder_without_events_loads(tiny_world: Path, tmp_path: Path) -> None:
    folder = rewritten(tiny_world, tmp_path / "quiet")
    (folder / EVENTS_FILE).unlink()
    assert load_esci(folder).events is None


def dictionary_encoded(table: pa.Table) -> pa.Table:
    for number, name in enumerate(table.column_names):
        if pa.types.is_string(table[name].type) or pa.types.is_large_string(table[name].type):
            table = table.set_column(number, name, table[name].dictionary_encode())
    return table


def other_widths(table: pa.Table) -> pa.Table:
    for number, name in enumerate(table.column_names):
        if pa.types.is_integer(table[name].type):
            table = table.set_column(number, name, table[name].cast(pa.int32()))
        elif pa.types.is_string(table[name].type):
            table = table.set_column(number, name, table[name].cast(pa.large_string()))
    return table


def with_pandas_index(table: pa.Table) -> pa.Table:
    return table.append_column("__index_level_0__", pa.array(range(len(table))))


@pytest.mark.parametrize("way", [dictionary_encoded, other_widths, with_pandas_index])
def test_version_is_of_content_not_of_types(way, tiny_world: Path, tiny_dataset: Dataset, tmp_path: Path) -> None:
    change = dict.fromkeys((EXAMPLES_FILE, PRODUCTS_FILE, EVENTS_FILE), way)
    other = load_esci(rewritten(tiny_world, tmp_path / "other", change))
    assert other.version == tiny_dataset.version
    pd.testing.assert_frame_equal(other.pairs, tiny_dataset.pairs)


def test_version_is_of_content_not_of_layout(tiny_world: Path, tiny_dataset: Dataset, tmp_path: Path) -> None:
    other = rewritten(tiny_world, tmp_path / "other", row_group_size=97, compression="gzip")
    assert load_esci(other).version == tiny_dataset.version


@pytest.mark.parametrize(
    ("file", "column"), [(EXAMPLES_FILE, "query"), (PRODUCTS_FILE, "product_brand"), (EVENTS_FILE, "action")]
)
def test_version_changes_with_one_value(
    file: str, column: str, tiny_world: Path, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    def change(table: pa.Table) -> pa.Table:
        values = table[column].to_pylist()
        values[3] = f"{values[3]}x"
        return table.set_column(table.column_names.index(column), column, pa.array(values, pa.string()))

    assert load_esci(rewritten(tiny_world, tmp_path / "other", {file: change})).version != tiny_dataset.version


def test_version_tells_missing_from_empty(tiny_world: Path, tiny_dataset: Dataset, tmp_path: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        number = table.column_names.index("product_brand")
        return table.set_column(number, "product_brand", pc.fill_null(table["product_brand"], ""))

    other = load_esci(rewritten(tiny_world, tmp_path / "other", {PRODUCTS_FILE: change}))
    assert other.version != tiny_dataset.version
    pd.testing.assert_frame_equal(other.products, tiny_dataset.products)


@given(st.lists(st.none() | st.text(max_size=6), max_size=30), st.integers(1, 7), st.booleans())
def test_fingerprint_does_not_see_batches(values: list[str | None], size: int, sliced: bool) -> None:
    def fingerprint(arrays: list[pa.Array]) -> str:
        column = ColumnFingerprint()
        for array in arrays:
            column.update(array)
        return column.hexdigest()

    whole = pa.array(values, pa.large_string())
    cuts = range(0, len(values), size)
    parts = [
        whole.slice(cut, size) if sliced else pa.array(values[cut : cut + size], pa.large_string()) for cut in cuts
    ]
    assert fingerprint(parts) == fingerprint([whole])


@given(
    st.lists(st.text("ab", max_size=3), min_size=1, max_size=4),
    st.lists(st.text("ab", max_size=3), min_size=1, max_size=4),
)
def test_fingerprint_tells_values_apart(one: list[str], other: list[str]) -> None:
    prints = []
    for values in (one, other):
        column = ColumnFingerprint()
        column.update(pa.array(values, pa.large_string()))
        prints.append(column.hexdigest())
    assert (prints[0] == prints[1]) == (one == other)


@pytest.mark.shared
def test_real_rows_load(esci_sample: Path) -> None:
    dataset = load_esci(esci_sample)
    assert len(dataset.pairs) == 9_881
    assert len(dataset.products) == 9_300
    assert (dataset.pairs["product"] >= 0).all()
    assert np.bincount(dataset.pairs["label"]).tolist() == [5301, 2557, 392, 1631]
