"""Other people's tables become the official layout, and what was made of them is said."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from esci_tournament.registry.errors import DataError, UsageError
from esci_tournament.registry.labels import LABEL_NAMES, LABELS
from esci_tournament.tasks.data.dataset import Dataset
from esci_tournament.tasks.data.importing import Imported, Options, import_tables
from esci_tournament.tasks.data.layout import EVENTS_FILE, EXAMPLES_FILE, PRODUCTS_FILE
from esci_tournament.tasks.data.load import load_esci

WORDS = dict(zip(LABELS, map(str.lower, LABEL_NAMES), strict=True))


@pytest.fixture(scope="module")
def pairs(tiny_world: Path) -> pd.DataFrame:
    return pd.read_parquet(tiny_world / EXAMPLES_FILE)


@pytest.fixture(scope="module")
def products(tiny_world: Path) -> pd.DataFrame:
    return pd.read_parquet(tiny_world / PRODUCTS_FILE)


def zipped(frame: pd.DataFrame, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(path.name.removesuffix(".zip"), frame.to_csv(index=False))
        archive.writestr(f"__MACOSX/._{path.name.removesuffix('.zip')}", b"\x00\x05\x16\x07")


def judged(folder: Path) -> pd.DataFrame:
    frame = pd.read_parquet(folder / EXAMPLES_FILE)
    return frame.sort_values(["query_id", "product_id", "product_locale"]).reset_index(drop=True)


def text_of(found: Imported) -> str:
    return "\n".join([*found.tables, *found.made, *(f"{one.count} {one.reason} {one.rows}" for one in found.left_out)])


def test_the_csv_files_of_kdd_cup(pairs: pd.DataFrame, products: pd.DataFrame, tmp_path: Path) -> None:
    folder = tmp_path / "kdd"
    folder.mkdir()
    theirs = pairs.rename(columns={"product_locale": "query_locale"}).assign(esci_label=pairs["esci_label"].map(WORDS))
    train, test = (theirs[theirs["split"] == one] for one in ("train", "test"))
    columns = ["query_id", "query", "query_locale", "product_id"]
    zipped(train[[*columns, "esci_label"]], folder / "train-v0.3.csv.zip")
    zipped(test[columns], folder / "test_public-v0.3.csv.zip")
    catalogue = products.rename(columns={"product_color": "product_color_name"})
    zipped(catalogue, folder / "product_catalogue-v0.3.csv.zip")
    found = import_tables(folder, tmp_path / "esci")
    assert (found.pairs, found.products, found.test_pairs) == (len(train), len(products), 0)
    said = text_of(found)
    for part in ("query_locale as product_locale", "product_color_name as product_color", "the name says so"):
        assert part in said
    assert f"{len(test):,} rows left out, for lack of labels" in said
    expected = train.rename(columns={"query_locale": "product_locale"}).assign(
        esci_label=pairs["esci_label"], small_version=1, large_version=1
    )
    expected = expected.sort_values(["query_id", "product_id", "product_locale"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(
        judged(tmp_path / "esci").drop(columns="example_id"),
        expected[judged(tmp_path / "esci").columns].drop(columns="example_id"),
        check_dtype=False,
    )
    assert (load_esci(tmp_path / "esci").pairs["product"] >= 0).all()


def test_a_joined_table_in_splits_is_taken_apart(
    pairs: pd.DataFrame, products: pd.DataFrame, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    """As the hub's copies of ESCI are: a folder of parquet for each split, with the texts in every row."""
    joined = pairs.merge(products, on=["product_id", "product_locale"]).assign(product_text="all of it")
    joined["esci_label"] = joined["esci_label"].map(WORDS).str.title()
    (tmp_path / "hub" / "data").mkdir(parents=True)
    for split, rows in joined.drop(columns="split").groupby(joined["split"]):
        for part, half in enumerate((rows.iloc[: len(rows) // 2], rows.iloc[len(rows) // 2 :])):
            half.to_parquet(tmp_path / "hub" / "data" / f"{split}-{part:05}-of-00002-0a1b2c3d.parquet")
    for name in ("README.md", "LICENSE", "empty.csv", "notes.txt"):
        (tmp_path / "hub" / name).write_text("words\n" if name == "notes.txt" else "")
    found = import_tables(tmp_path / "hub", tmp_path / "esci")
    assert found.left_out == ()
    assert "not read: product_text" in text_of(found)
    assert "no tables, not read: LICENSE, README.md, empty.csv and 1 more" in text_of(found)
    columns = ["example_id", "query_id", "query", "product_id", "esci_label", "split", "small_version"]
    assert judged(tmp_path / "esci")[columns].equals(
        pairs.sort_values(["query_id", "product_id", "product_locale"]).reset_index(drop=True)[columns]
    )
    written = (
        pd.read_parquet(tmp_path / "esci" / PRODUCTS_FILE).set_index(["product_locale", "product_id"]).sort_index()
    )
    of = products.set_index(["product_locale", "product_id"])
    assert written.equals(of.loc[of.index.isin(written.index), written.columns].sort_index())
    assert load_esci(tmp_path / "esci").pairs["label"].value_counts().equals(tiny_dataset.pairs["label"].value_counts())


ROWS = pd.DataFrame(
    {
        "Search Term": ["red lamp", "red lamp", "blue sofa", "red lamp"],
        "sku": ["A1", "A2", "A3", "A1"],
        "name": ["Red lamp", 'Lamp; "blue"\nlarge', "Sofa", "Red lamp"],
        "colour": ["red", "", "blue", "red"],
        "grade": [3, 1, 3, 3],
    }
)
OPTIONS = Options(labels={"3": "E", "1": "C", "0": "I"}, locale="us")


def test_shapes_of_the_same_table_give_the_same_files(tmp_path: Path) -> None:
    def lines(frame: pd.DataFrame) -> bytes:
        return frame.to_json(orient="records", lines=True).encode()

    shapes = {
        "t.csv": ROWS.to_csv().encode(),  # with pandas' index
        "t.tsv": ROWS.to_csv(index=False, sep="\t").encode("utf-8-sig"),
        "t.txt": ROWS.to_csv(index=False, sep="|").encode(),
        "u.csv": ROWS.to_csv(index=False, sep=";").encode("utf-16"),
        "t.csv.gz": gzip.compress(ROWS.to_csv(index=False).encode()),
        "t.jsonl": lines(ROWS),
        "t.ndjson.gz": gzip.compress(lines(ROWS)),
        "t.parquet": (buffer := io.BytesIO(), ROWS.to_parquet(buffer))[0].getvalue(),
        "f.parquet": (floats := io.BytesIO(), ROWS.astype({"grade": float}).to_parquet(floats))[0].getvalue(),
    }
    seen = set()
    for number, (name, content) in enumerate(shapes.items()):
        (tmp_path / name).write_bytes(content)
        found = import_tables(tmp_path / name, tmp_path / f"to{number}", OPTIONS)
        assert (found.pairs, found.products) == (3, 3), name
        seen.add(load_esci(tmp_path / f"to{number}").version)
    assert len(seen) == 1
    frame = pd.read_parquet(tmp_path / "to0" / EXAMPLES_FILE)
    assert frame["esci_label"].tolist() == ["E", "C", "E"]
    assert frame["query_id"].tolist() == [0, 0, 1]
    assert pd.read_parquet(tmp_path / "to0" / PRODUCTS_FILE)["product_title"][1] == 'Lamp; "blue"\nlarge'
    assert "judged before, alike" in text_of(found)
    assert "sku as product_id" in text_of(found)
    assert "nothing tells it" in text_of(found)


def test_rows_that_cannot_be_used_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = pd.DataFrame(
        [
            ("lamp", "1", "us", "exact", "Lamp", "train"),
            ("lamp", "1", "us", "irrelevant", "Lamp", "train"),
            (" ", "1", "us", "exact", "Lamp", "train"),
            ("lamp", "", "us", "exact", "Lamp", "train"),
            ("lamp", "2", "fr", "exact", "Lampe", "train"),
            ("lamp", "3", "US", "good", "Lamp 3", "test"),
            ("lamp", "4", "us", "", "Lamp 4", "test"),
            ("lamp", "5", "us", "S", "Lamp 5", "holdout"),
            ("lamp", "1", "es", "C", "Lampara", "valid"),
            ("sofa", "1", "us", "S", "Another text", "test"),
        ],
        columns=["query", "product_id", "locale", "label", "title", "split"],
    )
    rows.to_csv(tmp_path / "t.csv", index=False)
    found = import_tables(tmp_path / "t.csv", tmp_path / "to")
    assert (found.pairs, found.test_pairs) == (3, 1)
    counts = {one.reason: one.count for one in found.left_out}
    assert sum(counts.values()) == 7
    assert len(counts) == 7
    assert any("row 5: 'good'" in row for one in found.left_out for row in one.rows)
    assert "1 products have several texts (1 us)" in text_of(found)
    assert "split valid: read as train" in text_of(found)


def test_a_product_without_an_id_gets_one_of_its_texts(tmp_path: Path) -> None:
    ROWS.drop(columns="sku").to_csv(tmp_path / "t.csv", index=False)
    found = import_tables(tmp_path, tmp_path / "to", OPTIONS)
    assert (found.pairs, found.products) == (3, 3)
    assert "product_id: made" in text_of(found)


def test_numbers_that_tables_share_are_made_anew(tmp_path: Path) -> None:
    rows = pd.DataFrame(
        {"query_id": [0], "query": ["lamp"], "product_id": ["1"], "locale": ["us"], "label": ["E"], "title": ["Lamp"]}
    )
    rows.to_csv(tmp_path / "train.csv", index=False)
    rows.assign(query="sofa").to_csv(tmp_path / "test.csv", index=False)
    found = import_tables(tmp_path, tmp_path / "to")
    assert (found.pairs, found.test_pairs) == (2, 1)
    assert "tables use one number for several queries" in text_of(found)
    assert pd.read_parquet(tmp_path / "to" / EXAMPLES_FILE)["query_id"].nunique() == 2


REFUSED = {
    "numbers": (ROWS, Options(locale="us"), "labels are numbers.*--label 3=E"),
    "no locale": (ROWS, Options(), "no column says the locale.*--locale us"),
    "no label": (ROWS.drop(columns="grade"), OPTIONS, "no table has judgements.*4 rows left out, for lack of labels"),
    "no title": (ROWS.drop(columns="name"), OPTIONS, "no table has the titles"),
    "two labels": (ROWS.assign(label="E"), OPTIONS, "several columns may be esci_label.*--column esci_label=label"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_known_is_asked_for(case: str, tmp_path: Path) -> None:
    rows, options, said = REFUSED[case]
    rows.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match=said):
        import_tables(tmp_path / "t.csv", tmp_path / "to", options)
    assert not list((tmp_path / "to").glob("*"))


def test_a_column_is_read_as_one_says(tmp_path: Path) -> None:
    ROWS.assign(label="E").to_csv(tmp_path / "t.csv", index=False)
    options = Options(columns={"esci_label": "grade"}, labels=OPTIONS.labels, locale="us")
    assert import_tables(tmp_path / "t.csv", tmp_path / "to", options).pairs == 3
    with pytest.raises(UsageError, match="already"):
        import_tables(tmp_path / "t.csv", tmp_path / "to", options)
    with pytest.raises(UsageError, match="no column labell"):
        import_tables(tmp_path / "t.csv", tmp_path / "other", Options(columns={"labell": "grade"}))


def test_a_table_that_is_broken_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("query,sku,label,title\nlamp,1\n")
    with pytest.raises(DataError, match=r"cannot be read.*Expected 4 columns.*a\.csv"):
        import_tables(tmp_path / "a.csv", tmp_path / "to", Options(locale="us"))
    (tmp_path / "a.csv").write_bytes(b"query,sku,label,title\nl\xe1mpara,1,E,x\n")
    with pytest.raises(DataError, match=r"cannot be read.*UTF.?8.*a\.csv"):
        import_tables(tmp_path / "a.csv", tmp_path / "to", Options(locale="us"))
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"query,sku,label,title\n" + b"lamp,1,E,x\n" * 9999))
    with pytest.raises(DataError, match="data_max_gib"):
        import_tables(tmp_path / "b.csv.gz", tmp_path / "to", Options(locale="us", most_bytes=1000))
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress(b"query,sku\n" * 99)[:30])
    with pytest.raises(DataError, match="cannot be read"):
        import_tables(tmp_path / "c.csv.gz", tmp_path / "to", Options(locale="us"))
    (tmp_path / "d.jsonl").write_text('{"query": "lamp"}\n[1]\n')
    with pytest.raises(DataError, match="line 2"):
        import_tables(tmp_path / "d.jsonl", tmp_path / "to", Options(locale="us"))


def test_arrow_files_of_datasets_say_what_their_numbers_mean(tmp_path: Path) -> None:
    names = ["Irrelevant", "Complement", "Substitute", "Exact"]
    said = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    table = pa.Table.from_pandas(ROWS.rename(columns={"grade": "label"}), preserve_index=False)
    table = table.replace_schema_metadata({"huggingface": json.dumps(said)})
    (tmp_path / "train").mkdir()
    with pa.ipc.new_stream(str(tmp_path / "train" / "data-00000-of-00001.arrow"), table.schema) as out:
        out.write_table(table)
    import_tables(tmp_path, tmp_path / "to", Options(locale="us"))
    assert pd.read_parquet(tmp_path / "to" / EXAMPLES_FILE)["esci_label"].tolist() == ["E", "C", "E"]


def test_what_a_world_holds_survives(tiny_world: Path, tiny_dataset: Dataset, tmp_path: Path) -> None:
    """The official files themselves are tables like others: in parts, and with products of partitions."""
    folder = tmp_path / "in"
    for name in (EXAMPLES_FILE, PRODUCTS_FILE):
        table = pq.read_table(tiny_world / name)
        for locale in ("us", "es", "jp"):
            (folder / name / f"product_locale={locale}").mkdir(parents=True)
            rows = table.filter(pa.compute.equal(table["product_locale"], locale)).drop_columns(["product_locale"])
            pq.write_table(rows, folder / name / f"product_locale={locale}" / "part-0.parquet")
    found = import_tables(folder, tmp_path / "to")
    assert (found.pairs, found.products, found.left_out) == (len(tiny_dataset.pairs), len(tiny_dataset.products), ())
    ids = np.sort(pd.read_parquet(tmp_path / "to" / EXAMPLES_FILE)["example_id"])
    assert (ids == np.sort(tiny_dataset.pairs["example_id"])).all()
    assert not (tmp_path / "to" / EVENTS_FILE).exists()


def test_the_catalogue_says_what_a_product_is_called(tmp_path: Path) -> None:
    ROWS.assign(name="as it was shown").to_csv(tmp_path / "a.csv", index=False)
    ROWS[["sku", "name"]].drop_duplicates().to_csv(tmp_path / "catalogue.csv", index=False)
    found = import_tables(tmp_path, tmp_path / "to", OPTIONS)
    assert "3 products have several texts" in text_of(found)
    assert pd.read_parquet(tmp_path / "to" / PRODUCTS_FILE)["product_title"].tolist()[2] == "Sofa"
