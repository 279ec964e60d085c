"""Tables of pairs: a row in is a row out, in its order, with its cells untouched."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esci_tournament.deployments.pair_tables import beside, read_table, write_table
from esci_tournament.registry.errors import DataError, UsageError

CELLS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=12) | st.sampled_from(
    ["NA", "null", "None", "nan", "", "007", "0065030834155", "1e5", "7.0", "true", "2024-01-01", 'a "b", c', "x\ny"]
)


@settings(max_examples=60)
@given(
    rows=st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=6),
    suffix=st.sampled_from([".csv", ".tsv", ".csv.gz"]),
)
def test_text_comes_back_as_it_was(rows: list[tuple[str, ...]], suffix: str, tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("text")
    source, target = folder / f"in{suffix}", folder / f"out{suffix}"
    content = io.StringIO(newline="")
    csv.writer(content, delimiter="\t" if suffix == ".tsv" else ",").writerows([("query", "sku", "label"), *rows])
    (gzip.open if suffix.endswith(".gz") else open)(source, "wb").write(content.getvalue().encode())
    write_table(read_table(source), target, raw=True)
    again = [tuple(row.values()) for row in read_table(target).to_pylist()]
    assert again == [tuple(row.values()) for row in read_table(source).to_pylist()] == rows


def test_parquet_keeps_types_order_and_a_pandas_index(tmp_path: Path) -> None:
    part = pd.DataFrame(
        {
            "query": ["a", "b"],
            "count": pd.array([2**60, None], "Int64"),
            "seen": pd.to_datetime(["2026-01-01 00:00:00.123456789", None]),
            "tags": [["x"], []],
        }
    )
    frame = pd.concat([part, part])  # each index twice
    frame.to_parquet(tmp_path / "in.parquet")
    assert "__index_level_0__" in pq.read_schema(tmp_path / "in.parquet").names
    table, prefix = beside(read_table(tmp_path / "in.parquet"), {"E": pa.array([0.1, 0.2, 0.3, 0.4], pa.float32())})
    write_table(table, tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet")
    assert prefix == ""
    assert found.drop(["E"]).equals(pq.read_table(tmp_path / "in.parquet"))
    assert pd.read_parquet(tmp_path / "out.parquet").index.tolist() == [0, 1, 0, 1]
    write_table(table, tmp_path / "out.csv")
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert len(lines) == 5
    assert lines[:3] == [
        "query,count,seen,tags,E",
        'a,1152921504606846976,2026-01-01T00:00:00.123456789,"[""x""]",0.1',
        "b,,,[],0.2",
    ]


def test_new_columns_never_take_the_name_of_one_that_is_there() -> None:
    answer = {"E": pa.array([0.5]), "label": pa.array(["E"])}
    table = pa.table({"query": ["lamp"], "label": ["S"]})
    once, first = beside(table, answer)
    twice, second = beside(once, answer)
    assert (first, second) == ("champion_", "champion_2_")
    assert once.column_names == ["query", "label", "champion_E", "champion_label"]
    assert once["label"].to_pylist() == ["S"]
    assert len(set(twice.column_names)) == len(twice.column_names) == 6


@pytest.mark.parametrize(
    ("content", "cells"),
    [
        ("query;product_locale\nred, lamp;us\n".encode("utf-8-sig"), ["red, lamp", "us"]),
        ("query\tproduct_locale\nred lamp\tus\n".encode("utf-16"), ["red lamp", "us"]),
        (b'query,product_locale\r\n"red ""lamp""",us\r\n\r\n', ['red "lamp"', "us"]),
    ],
    ids=["semicolons with a mark", "what a spreadsheet calls Unicode text", "quotes and blank lines"],
)
def test_csv_as_spreadsheets_write_it(content: bytes, cells: list[str], tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    assert [list(row.values()) for row in read_table(tmp_path / "x.csv").to_pylist()] == [cells]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("x.csv", b"query,a\nlamp,us,more\n", "a row has 3 cells, and the header 2.*line 2.*quotation marks"),
        ("x.csv", "query,a\nlámpara,es\n".encode("latin-1"), "not UTF-8.*save it as UTF-8"),
        ("x.csv", b'query,a\n"lamp,us\n', "no CSV"),
        ("x.csv", b"query,a\n", "holds no rows"),
        ("x.csv", b"", "holds no rows"),
        ("x.csv.gz", b"query,a\nlamp,us\n", "cannot be read"),
        ("x.parquet", b"PAR1" + b"\xff" * 40 + b"PAR1", "cannot be read"),
        ("x.xlsx", b"PK", "not a .csv, .tsv, .parquet file"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_data_error(name: str, content: bytes, complaint: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=complaint):
        read_table(tmp_path / name)


def test_a_name_of_no_known_format_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must end in \.csv, \.tsv, \.parquet"):
        write_table(pa.table({"query": ["lamp"]}), tmp_path / "x.xlsx")
    assert not list(tmp_path.iterdir())


def test_a_spreadsheet_finds_no_formula_in_what_was_labelled(tmp_path: Path) -> None:
    """X4.3: a query `=HYPERLINK` and a title `@SUM` came out as they were."""
    texts = ["=HYPERLINK(1)", "+1a", "-x", "@SUM(A1)", "\tx", "\rx", "\n=1", " =1", "\uff1d1", "lamp", "", "-3.5", None]
    when = [dt.datetime(2026, 1, 1, tzinfo=dt.UTC)] * len(texts)
    table = pa.table({"query": texts, "=title": texts, "E": [-0.5] * len(texts), "at": when})
    write_table(table, tmp_path / "x.csv", raw=False)
    found = pd.read_csv(tmp_path / "x.csv", keep_default_na=False, dtype=str)
    assert list(found.columns) == ["query", "'=title", "E", "at"]
    for column in ("query", "'=title"):
        assert [text.startswith("'") for text in found[column]] == [True] * 9 + [False] * 4
    assert (found["E"] == "-0.5").all()
    write_table(table, tmp_path / "raw.csv", raw=True)
    assert pd.read_csv(tmp_path / "raw.csv")["query"][0] == "=HYPERLINK(1)"
