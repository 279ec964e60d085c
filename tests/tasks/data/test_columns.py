"""Columns as pandas, polars, Spark and databases write them are read as what they hold."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from esci_tournament.registry.errors import DataError
from esci_tournament.tasks.data.columns import canonical
from esci_tournament.tasks.data.dataset import Dataset
from esci_tournament.tasks.data.layout import EVENTS_FILE, EXAMPLES_FILE, PRODUCTS_FILE
from esci_tournament.tasks.data.load import load_esci, structural_problems
from esci_tournament.tasks.data.reading import Reading

Change = Callable[[pa.Table], pa.Table]


def put(name: str, make: Callable[[pa.ChunkedArray], pa.Array]) -> Change:
    def change(table: pa.Table) -> pa.Table:
        return table.set_column(table.column_names.index(name), name, make(table[name]))

    return change


def cast(name: str, to: pa.DataType) -> Change:
    return put(name, lambda column: column.cast(to))


def every(kind: Callable[[pa.DataType], bool], to: pa.DataType) -> Change:
    def change(table: pa.Table) -> pa.Table:
        fields = [pa.field(one.name, to if kind(one.type) else one.type) for one in table.schema]
        return table.cast(pa.schema(fields))

    return change


def _is_text(found: pa.DataType) -> bool:
    return pa.types.is_string(found) or pa.types.is_large_string(found)


def _end_of_run(table: pa.Table) -> pa.Table:
    return table.append_column("index", pa.array(range(7, len(table) + 7))).append_column(
        "Unnamed: 0", pa.array(["x"] * len(table))
    )


SAME: dict[str, tuple[str, Change]] = {
    "text as string_view": (PRODUCTS_FILE, every(_is_text, pa.string_view())),
    "text as binary": (PRODUCTS_FILE, every(_is_text, pa.binary())),
    "text as large_string": (EXAMPLES_FILE, every(_is_text, pa.large_string())),
    "unsigned integers": (EXAMPLES_FILE, cast("query_id", pa.uint64())),
    "decimals": (EXAMPLES_FILE, cast("query_id", pa.decimal128(38, 0))),
    "whole floats": (EXAMPLES_FILE, cast("example_id", pa.float64())),
    "flags as booleans": (EXAMPLES_FILE, cast("small_version", pa.bool_())),
    "nanoseconds": (EVENTS_FILE, cast("timestamp", pa.timestamp("ns"))),
    "nanoseconds of a zone": (EVENTS_FILE, cast("timestamp", pa.timestamp("ns", "Asia/Tokyo"))),
    "pandas' index, reset": (EXAMPLES_FILE, _end_of_run),
    "polars' row numbers": (
        PRODUCTS_FILE,
        lambda table: table.append_column("row_nr", pa.array(range(len(table)), pa.uint32())),
    ),
    "labels as words": (
        EXAMPLES_FILE,
        put(
            "esci_label",
            lambda column: pa.array(
                [
                    {"E": "exact", "S": "Substitute", "C": "COMPLEMENT", "I": " irrelevant"}[one]
                    for one in column.to_pylist()
                ]
            ).dictionary_encode(),
        ),
    ),
}


@pytest.fixture
def changed(tiny_world: Path, tmp_path: Path) -> Callable[[str, Change], Path]:
    def make(file: str, change: Change) -> Path:
        for name in (EXAMPLES_FILE, PRODUCTS_FILE, EVENTS_FILE):
            if name == file:
                pq.write_table(change(pq.read_table(tiny_world / name)), tmp_path / name)
            else:
                (tmp_path / name).symlink_to(tiny_world / name)
        return tmp_path

    return make


@pytest.mark.parametrize("case", SAME)
def test_the_version_is_of_what_columns_hold(case: str, changed: Callable, tiny_dataset: Dataset) -> None:
    assert load_esci(changed(*SAME[case])).version == tiny_dataset.version


def test_an_index_with_a_name_is_ignored(changed: Callable, tiny_world: Path) -> None:
    frame = pd.read_parquet(tiny_world / PRODUCTS_FILE).sample(frac=1, random_state=0).rename_axis("shop_row")
    folder = changed(PRODUCTS_FILE, lambda _: pa.Table.from_pandas(frame.iloc[::-1]))
    assert "shop_row" in pq.read_schema(folder / PRODUCTS_FILE).names
    assert structural_problems(folder) == []


def test_a_column_called_index_that_counts_nothing_is_refused(changed: Callable) -> None:
    folder = changed(PRODUCTS_FILE, lambda table: table.append_column("index", pa.array([3] * len(table))))
    assert "column: index" in str(*structural_problems(folder))


def test_further_columns_are_ignored_when_settings_say_so(changed: Callable, tiny_dataset: Dataset) -> None:
    further = lambda table: table.append_column("price", pa.nulls(len(table), pa.float64())).append_column(  # noqa: E731
        "stock", pa.nulls(len(table), pa.list_(pa.int8()))
    )
    folder = changed(PRODUCTS_FILE, further)
    with pytest.raises(DataError, match=r'column: price, stock.*data_extra_columns = \["price", "stock"\]'):
        load_esci(folder)
    assert load_esci(folder, reading=Reading("ignore")).version == tiny_dataset.version
    assert load_esci(folder, reading=Reading(("price", "stock"))).version == tiny_dataset.version
    with pytest.raises(DataError, match=r"column: stock;"):
        load_esci(folder, reading=Reading(("price",)))


@pytest.mark.parametrize(
    ("numbers", "meant"),
    [
        ({"E": 3, "S": 2, "C": 1, "I": 0}, {"3": "E", "2": "S", "1": "C", "0": "I"}),
        ({"E": 1.0, "S": 0.1, "C": 0.01, "I": 0.0}, {"1": "E", "0.1": "S", "0.01": "C", "0": "I"}),
        ({"E": "exacto", "S": "2", "C": "c", "I": "I"}, {"exacto": "E", "2": "S"}),
    ],
)
def test_numbers_are_labels_where_settings_say_which(
    numbers: dict, meant: dict[str, str], changed: Callable, tiny_dataset: Dataset
) -> None:
    folder = changed(
        EXAMPLES_FILE, put("esci_label", lambda column: pa.array([numbers[one] for one in column.to_pylist()]))
    )
    assert load_esci(folder, reading=Reading(labels=meant)).version == tiny_dataset.version
    if isinstance(numbers["E"], str):
        assert (load_esci(folder).pairs["label"] < 0).any()
    else:
        assert "data_labels = {" in str(*structural_problems(folder))


def test_a_file_may_say_itself_what_its_numbers_mean(changed: Callable, tiny_dataset: Dataset) -> None:
    """The library `datasets` writes classes as numbers, and their names into the file."""
    names = ["Complement", "Exact", "Irrelevant", "Substitute"]

    def change(table: pa.Table) -> pa.Table:
        numbers = put("esci_label", lambda column: pa.array(["CEIS".index(one) for one in column.to_pylist()]))(table)
        said = {"info": {"features": {"esci_label": {"names": names, "_type": "ClassLabel"}}}}
        return numbers.replace_schema_metadata({"huggingface": json.dumps(said)})

    assert load_esci(changed(EXAMPLES_FILE, change)).version == tiny_dataset.version


@pytest.mark.parametrize(
    ("array", "kind", "said"),
    [
        (pa.array([1.0, 2.5]), "integer", "wrong type.*row 11: 2.5"),
        (pa.array([1.0, 2.0**60]), "integer", "16 digits"),
        (pa.array([1.0, float("nan")]), "integer", "values are missing.*row 11"),
        (pa.array([Decimal("1.5")]), "integer", "cannot be read as an integer"),
        (pa.array([2**63], pa.uint64()), "integer", "cannot be read as an integer"),
        (pa.array([b"\xff"]), "text", "cannot be read as text"),
    ],
)
def test_a_value_that_is_none_of_its_kind_is_refused(array: pa.Array, kind: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        canonical(array, kind, Path("file"), "column", 10)


def test_times_of_a_zone_become_utc() -> None:
    noon = dt.datetime(2024, 7, 1, 12, tzinfo=dt.UTC)
    expected = pa.array([noon.replace(tzinfo=None)], pa.timestamp("us"))
    for kind in (pa.timestamp("s", "Europe/Berlin"), pa.timestamp("ms", "UTC"), pa.timestamp("ns", "Asia/Tokyo")):
        assert canonical(pa.array([noon], kind), "time", Path("file"), "timestamp", 0).equals(expected)
    micro = int(noon.timestamp()) * 10**6
    numbers = [pa.array([micro // 10**6]), pa.array([micro // 10**3]), pa.array([micro]), pa.array([micro * 10**3])]
    words = [pa.array([one]) for one in ("2024-07-01T12:00:00Z", "2024-07-01 14:00:00+02:00", "2024-07-01T12:00:00")]
    for given in (*numbers, *words, pa.array([micro / 10**6])):
        assert canonical(given, "time", Path("file"), "timestamp", 0).equals(expected), given
    assert canonical(pa.array([7]), "time", Path("file"), "timestamp", 0)[0].as_py().year == 1970
    for given, said in ((pa.array(["soon"]), "cannot be read as a timestamp"), (pa.array([None, micro]), "missing")):
        with pytest.raises(DataError, match=said):
            canonical(given, "time", Path("file"), "timestamp", 0)
    assert canonical(pa.array([dt.date(2024, 7, 1)]), "time", Path("file"), "timestamp", 0)[0].as_py().hour == 0
