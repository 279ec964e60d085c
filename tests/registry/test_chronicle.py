"""The champion's history, exported to a file that other programs can read."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from esci_tournament.registry.chronicle import export_chronicle
from esci_tournament.registry.errors import UsageError

ROW = {
    "sequence": 1,
    "version": 2,
    "came": ["a/1", "b/2"],
    "reason": '=HYPERLINK("http://evil")',
    "links": {"Report": "/home/r.html"},
}


def test_a_csv_has_a_column_for_each_link_and_no_formula(tmp_path: Path) -> None:
    other = {**ROW, "sequence": 2, "reason": "slow, and\nold", "links": {"Review": "http://x"}}
    export_chronicle([ROW, other], tmp_path / "h.CSV")
    with (tmp_path / "h.CSV").open(encoding="utf-8", newline="") as file:
        first, second = csv.DictReader(file)
    assert first["reason"] == '\'=HYPERLINK("http://evil")'
    assert (first["came"], first["link: Report"], first["link: Review"]) == ("a/1 b/2", "/home/r.html", "")
    assert (second["reason"], second["link: Review"]) == ("slow, and\nold", "http://x")


def test_json_is_the_rows_as_they_are(tmp_path: Path) -> None:
    export_chronicle([ROW], tmp_path / "h.json")
    assert json.loads((tmp_path / "h.json").read_text(encoding="utf-8")) == [ROW]


def test_another_format_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"history\.xlsx.*\.json or \.csv"):
        export_chronicle([ROW], tmp_path / "history.xlsx")
    assert list(tmp_path.iterdir()) == []
