"""Shapes in which UBI logs are exported: each gives the same documents, and what is of no shape is named."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pandas as pd
import pytest

from esci_tournament.registry.errors import DataError
from esci_tournament.tasks.data.ubi_files import NAMES, documents, ubi_files, unit_of

EVENTS = [
    {
        "action_name": "click",
        "query_id": f"q{number}",
        "timestamp": "2026-01-01T00:00:05Z",
        "event_attributes": {"object": {"object_id": f"P{number}"}, "position": {"ordinal": number}},
    }
    for number in range(3)
]


def lines(entries: list[dict]) -> str:
    return "".join(json.dumps(one) + "\n" for one in entries)


def as_csv(folder: Path) -> str:
    pd.json_normalize(EVENTS).to_csv(folder / "flat", index=False, quoting=csv.QUOTE_MINIMAL)
    return (folder / "flat").read_text()


def csv_of_json_cells(folder: Path) -> str:
    rows = [{**one, "event_attributes": json.dumps(one["event_attributes"])} for one in EVENTS]
    pd.DataFrame(rows).to_csv(folder / "flat", index=False)
    return (folder / "flat").read_text()


SHAPES = {
    "lines": ("ubi_events.ndjson", lambda _: lines(EVENTS)),
    "lines with a mark": ("ubi_events.jsonl", lambda _: "\ufeff" + lines(EVENTS)),
    "lines named json": ("ubi_events.json", lambda _: lines(EVENTS)),
    "bulk": ("ubi_events.ndjson", lambda _: "".join('{"index": {"_id": 1}}\n' + lines([one]) for one in EVENTS)),
    "elasticdump": (
        "ubi_events.json",
        lambda _: lines([{"_index": "x", "_id": "1", "_source": one} for one in EVENTS]),
    ),
    "a list": ("ubi_events.json", lambda _: json.dumps(EVENTS)),
    "a list, indented": ("ubi_events.json", lambda _: json.dumps(EVENTS, indent=2)),
    "hits": (
        "ubi_events.json",
        lambda _: json.dumps({"took": 1, "hits": {"hits": [{"_source": one} for one in EVENTS]}}),
    ),
    "csv": ("ubi_events.csv", as_csv),
    "csv of a spreadsheet": ("ubi_events.csv", lambda folder: "\ufeff" + as_csv(folder).replace(",", ";")),
    "csv of json cells": ("ubi_events.csv", csv_of_json_cells),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_holds_the_same_documents(shape: str, packed: bool, tmp_path: Path) -> None:
    name, write = SHAPES[shape]
    path = tmp_path / f"{name}{'.gz' if packed else ''}"
    content = write(tmp_path).encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    assert ubi_files(tmp_path) == [path]
    found = [document for _, document in documents(path)]
    if name.endswith(".csv"):  # where every cell is text
        assert json.loads(json.dumps(found)) == [
            {
                **one,
                "event_attributes": {**one["event_attributes"], "position": position["event_attributes"]["position"]},
            }
            for one, position in zip(EVENTS, found, strict=True)
        ]
        assert [int(one["event_attributes"]["position"]["ordinal"]) for one in found] == [0, 1, 2]
    else:
        assert found == EVENTS


def test_places_are_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "ubi_events.ndjson").write_text("\n" + lines(EVENTS))
    (tmp_path / "ubi_queries.json").write_text(json.dumps(EVENTS))
    queries, events = ubi_files(tmp_path)
    assert (unit_of(events), [number for number, _ in documents(events)]) == ("line", [2, 3, 4])
    assert (unit_of(queries), [number for number, _ in documents(queries)]) == ("document", [1, 2, 3])


def test_a_log_in_two_shapes_does_not_count_twice(tmp_path: Path) -> None:
    for name in ("ubi_events.ndjson", "ubi_events.csv.gz"):
        (tmp_path / name).write_text("")
    with pytest.raises(DataError, match=r"a log is there in two files.*keep one of ubi_events.ndjson and"):
        ubi_files(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("ubi_events.ndjson.gz", b"{}\n", "cannot be read"),
        ("ubi_events.ndjson.gz", gzip.compress(lines(EVENTS).encode())[:-20], "cannot be read"),
        ("ubi_events.csv", b"a,b\n1\n", "a line is of 1 values; the header has 2.*line 2"),
        ("ubi_events.csv", b"a,a\n1,2\n", "names a column twice"),
        ("ubi_events.csv", b"a,b\n\xff,2\n", "no CSV in UTF-8"),
        ("ubi_events.json", b"[1, 2]", "a document is no JSON object but int.*document 1"),
        ("ubi_events.json", b"[{}", "the file is no JSON"),
        ("ubi_events.json", b'"text"', "no list of documents but str"),
    ],
)
def test_what_has_not_the_shape_of_its_name_is_named(name: str, content: bytes, complaint: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=complaint):
        list(documents(tmp_path / name))


def test_names_are_told_apart_by_stem_and_shape() -> None:
    assert len(NAMES) == len(set(NAMES)) == 24
