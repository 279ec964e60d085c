"""Bad input: a broken folder is refused with the file, the column, the first invalid rows and their number."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from esci_tournament.registry.errors import DataError
from esci_tournament.tasks.data.layout import EVENTS_FILE, EXAMPLES_FILE, PRODUCTS_FILE
from esci_tournament.tasks.data.load import load_esci
from esci_tournament.tasks.data.validate import check_folder, raise_if_critical, validate

Break = Callable[[Path], None]


def rows(file: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Break:
    """Return what rewrites a file through a frame."""

    def rewrite(folder: Path) -> None:
        changed = change(pd.read_parquet(folder / file))
        changed.to_parquet(folder / file, index=False)

    return rewrite


def value(file: str, row: int, column: str, new: object) -> Break:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame[column] = frame[column].astype(object)
        frame.loc[row, column] = new
        return frame

    return rows(file, change)


def flip_split(frame: pd.DataFrame) -> pd.DataFrame:
    """Move one judgement of the query of row 0 to the other split."""
    same = frame.index[frame["query_id"] == frame.loc[0, "query_id"]]
    frame.loc[same, "split"] = "train"
    frame.loc[same[-1], "split"] = "test"
    return frame


def same_text_other_id(frame: pd.DataFrame) -> pd.DataFrame:
    """Give the first test query the text of the first train query."""
    train = frame[frame["split"] == "train"].iloc[0]
    test = frame[(frame["split"] == "test") & (frame["product_locale"] == train["product_locale"])].iloc[0]
    frame.loc[frame["query_id"] == test["query_id"], "query"] = train["query"]
    return frame


def drop_product(folder: Path) -> None:
    judged = pd.read_parquet(folder / EXAMPLES_FILE).loc[4, "product_id"]
    rows(PRODUCTS_FILE, lambda frame: frame[frame["product_id"] != judged])(folder)


def truncate(folder: Path) -> None:
    content = (folder / PRODUCTS_FILE).read_bytes()
    (folder / PRODUCTS_FILE).write_bytes(content[: len(content) // 2])


def scratch(folder: Path) -> None:
    """Damage the middle of a file and leave its footer whole."""
    content = bytearray((folder / PRODUCTS_FILE).read_bytes())
    middle = len(content) // 3
    content[middle : middle + 400] = b"\xff" * 400
    (folder / PRODUCTS_FILE).write_bytes(bytes(content))


STRUCTURE: dict[str, tuple[Break, list[str]]] = {
    "missing folder": (shutil.rmtree, ["folder does not exist"]),
    "missing file": (lambda folder: (folder / PRODUCTS_FILE).unlink(), ["missing", PRODUCTS_FILE]),
    "missing column": (
        rows(EXAMPLES_FILE, lambda frame: frame.drop(columns="esci_label")),
        [EXAMPLES_FILE, "column is missing", "column: esci_label"],
    ),
    "extra column": (
        rows(PRODUCTS_FILE, lambda frame: frame.assign(price=1.0)),
        [PRODUCTS_FILE, "column is not known", "column: price"],
    ),
    "wrong type": (
        rows(EXAMPLES_FILE, lambda frame: frame.assign(query_id=frame["query_id"].astype(str))),
        [EXAMPLES_FILE, "wrong type", "column: query_id", "must be an integer"],
    ),
    "float ids": (
        rows(EXAMPLES_FILE, lambda frame: frame.assign(example_id=frame["example_id"] + 0.5)),
        [EXAMPLES_FILE, "wrong type", "column: example_id", "double"],
    ),
    "missing ids": (
        rows(
            EXAMPLES_FILE, lambda frame: frame.assign(query_id=frame["query_id"].astype("Int64").mask(frame.index == 6))
        ),
        [EXAMPLES_FILE, "values are missing", "column: query_id", "row 6", "1 in all"],
    ),
    "empty file": (rows(EXAMPLES_FILE, lambda frame: frame.iloc[:0]), [EXAMPLES_FILE, "empty"]),
    "no bytes": (lambda folder: (folder / EXAMPLES_FILE).write_bytes(b""), [EXAMPLES_FILE, "truncated"]),
    "truncated": (truncate, [PRODUCTS_FILE, "truncated"]),
    "damaged": (scratch, [PRODUCTS_FILE, "damaged"]),
    "no parquet": (lambda folder: (folder / EVENTS_FILE).write_text("a,b\n1,2\n"), [EVENTS_FILE, "no parquet"]),
}

CONTENT: dict[str, tuple[Break, list[str]]] = {
    "unknown label": (
        value(EXAMPLES_FILE, 3, "esci_label", "X"),
        [EXAMPLES_FILE, "label", "column: esci_label", "row 3", "example_id 3", "'X'", "1 in all"],
    ),
    "no label": (
        value(EXAMPLES_FILE, 3, "esci_label", None),
        ["label", "column: esci_label", "row 3", "None", "1 in all"],
    ),
    "unknown locale": (
        value(EXAMPLES_FILE, 2, "product_locale", "fr"),
        [EXAMPLES_FILE, "locale", "column: product_locale", "row 2", "'fr'", "1 in all"],
    ),
    "unknown locale of a product": (
        value(PRODUCTS_FILE, 2, "product_locale", "fr"),
        [PRODUCTS_FILE, "locale", "column: product_locale", "row 2", "'fr'", "1 in all"],
    ),
    "unknown split": (
        value(EXAMPLES_FILE, 2, "split", "dev"),
        [EXAMPLES_FILE, "split", "column: split", "row 2", "'dev'", "1 in all"],
    ),
    "duplicate ids": (
        value(EXAMPLES_FILE, 9, "example_id", 1),
        [EXAMPLES_FILE, "example_id", "column: example_id", "row 1 ", "row 9 ", "2 in all"],
    ),
    "duplicate judgement": (
        rows(EXAMPLES_FILE, lambda frame: pd.concat([frame, frame.iloc[[5]].assign(example_id=999_999)])),
        [EXAMPLES_FILE, "judged more than once", "column: query_id, product_id, product_locale", "row 5 ", "2 in all"],
    ),
    "orphan product": (drop_product, [EXAMPLES_FILE, "not in the catalogue", "column: product_id", "row 4 "]),
    "duplicate product": (
        rows(PRODUCTS_FILE, lambda frame: pd.concat([frame, frame.iloc[[7]]])),
        [PRODUCTS_FILE, "more than once", "column: product_id, product_locale", "row 7 ", "2 in all"],
    ),
    "blank query": (
        value(EXAMPLES_FILE, 8, "query", " \t "),
        [EXAMPLES_FILE, "blank", "column: query", "row 8 ", "1 in all"],
    ),
    "query in both splits": (
        rows(EXAMPLES_FILE, flip_split),
        [EXAMPLES_FILE, "in both splits", "column: query, split", "row 0 "],
    ),
    "query text in both splits": (
        rows(EXAMPLES_FILE, same_text_other_id),
        [EXAMPLES_FILE, "in both splits", "column: query, split", "row "],
    ),
    "untitled products": (
        rows(PRODUCTS_FILE, lambda frame: frame.assign(product_title=frame["product_title"].mask(frame.index < 9))),
        [PRODUCTS_FILE, "no title", "column: product_title", "row 0 ", "9 in all"],
    ),
    "unknown action": (
        value(EVENTS_FILE, 11, "action", "gaze"),
        [EVENTS_FILE, "action", "column: action", "row 11 ", "'gaze'", "1 in all"],
    ),
}


@pytest.fixture
def folder(tiny_world: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_world, tmp_path / "broken"))


@pytest.mark.parametrize("case", STRUCTURE)
def test_unreadable_folders_are_refused_when_loaded(case: str, folder: Path) -> None:
    damage, parts = STRUCTURE[case]
    damage(folder)
    with pytest.raises(DataError) as raised:
        load_esci(folder)
    assert [part for part in parts if part not in str(raised.value)] == [], str(raised.value)


@pytest.mark.parametrize("case", CONTENT)
def test_wrong_rows_are_refused_when_validated(case: str, folder: Path) -> None:
    damage, parts = CONTENT[case]
    damage(folder)
    with pytest.raises(DataError) as raised:
        raise_if_critical(validate(load_esci(folder)))
    assert [part for part in parts if part not in str(raised.value)] == [], str(raised.value)


def test_all_structural_problems_are_checked_at_once(folder: Path) -> None:
    rows(EXAMPLES_FILE, lambda frame: frame.drop(columns="split").assign(rank=1))(folder)
    truncate(folder)
    result = check_folder(folder)
    assert not result.passed
    assert [(Path(check.file).name, check.column) for check in result.failures] == [
        (EXAMPLES_FILE, "split"),
        (EXAMPLES_FILE, "rank"),
        (PRODUCTS_FILE, ""),
    ]


def test_a_load_with_several_problems_says_how_many_more(folder: Path) -> None:
    rows(EXAMPLES_FILE, lambda frame: frame.drop(columns="split").assign(rank=1))(folder)
    with pytest.raises(DataError, match="1 more"):
        load_esci(folder)


def test_all_wrong_rows_are_checked_at_once(folder: Path) -> None:
    for case in ("unknown label", "unknown action", "duplicate product", "blank query"):
        CONTENT[case][0](folder)
    failed = {check.name for check in check_folder(folder).failures}
    assert {"label_known", "action_known", "product_unique", "query_not_blank"} <= failed


def test_an_event_of_an_unknown_product_is_a_warning(folder: Path) -> None:
    value(EVENTS_FILE, 5, "product_id", "NOWHERE")(folder)
    result = check_folder(folder)
    assert result.passed
    warning = next(check for check in result.warnings if check.name == "event_product_exists")
    assert warning.count == 1
    assert warning.first_rows[0].startswith("row 5 ")
    assert "NOWHERE" in warning.first_rows[0]


def test_a_value_of_the_wrong_encoding_is_named(folder: Path) -> None:
    table = pq.read_table(folder / PRODUCTS_FILE)
    broken = pa.array([b"\xff\xfe"] * len(table), pa.binary()).cast(pa.string(), safe=False)
    number = table.column_names.index("product_title")
    pq.write_table(table.set_column(number, "product_title", broken), folder / PRODUCTS_FILE)
    with pytest.raises(DataError, match="product_title"):
        load_esci(folder)
