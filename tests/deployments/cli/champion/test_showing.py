"""`tournament champion show`, `history` and `compare`: whose numbers they are, and how the champion came to serve."""

from __future__ import annotations

import csv
from typing import Any

import pytest

from esci_tournament.registry.workspace import Workspace


def test_show_says_that_it_was_rolled_back_from_what_by_whom_and_why(champion: Any) -> None:
    assert "rolled back" not in champion("show").err
    champion("rollback", "--reason", "slow")
    shown = champion("show")
    change = shown.document["change"]
    assert (shown.document["version"], change["kind"], change["from"], change["reason"]) == (1, "rollback", 2, "slow")
    assert f"rolled back from version 2 on {change['at'][:10]} by {change['by']}: slow" in shown.err
    assert shown.document["since"] == change["at"] != shown.document["installed"]
    assert shown.document["metrics"] == {"macro_f1": 0.51}, "the newest tournament that measured version 1"


def test_history_has_the_numbers_of_each_version_and_exports_them(champion: Any, tmp_path: Any) -> None:
    said = champion("history", "--export", tmp_path / "h.csv")
    rows = said.document
    assert "version 2  macro_f1 0.6000" in said.err
    assert [(row["metrics"], row["measured_in"]) for row in rows] == [
        ({"macro_f1": 0.5}, "t1"),
        ({"macro_f1": 0.6}, "t2"),
    ]
    with (tmp_path / "h.csv").open(encoding="utf-8", newline="") as file:
        assert [row["metric: macro_f1"] for row in csv.DictReader(file)] == ["0.5", "0.6"]


def test_versions_are_compared_where_one_tournament_has_measured_both(champion: Any) -> None:
    found = champion("compare", 2, 1).document
    assert (found["came"], found["went"], found["stayed"]) == (["m2/1"], ["m1/1"], ["all/1"])
    [row] = found["metrics"]
    assert (row["first"], row["second"], round(row["difference"], 6)) == (0.6, 0.51, 0.09)
    assert found["first"]["cost"] == {"memory_mib": 150.0, "milliseconds": 3.5, "kind": "cpu"}
    apart = champion("compare", 3)
    assert apart.document["second"]["is_champion"]
    assert (apart.document["same_pairs"], apart.document["metrics"][0]["difference"]) == (False, None)
    assert "no differences" in apart.err


def test_numbers_of_a_refused_challenger_and_of_the_champion_beside_it_stay_sealed(
    champion: Any, versions: Workspace
) -> None:
    ledger = versions.ledger
    ledger.start_tournament("t9", "data-1", payload={"against": 2, "champion": 2})
    row = {"scope": "all", "metric": "macro_f1", "challenger": 0.11, "champion": 0.99}
    ledger.record_verdict("t9", "refuse", {"metrics": [row], "reason": "worse", "checks": []}, 2)
    ledger.finish_tournament("t9")
    for words in (("show",), ("history",), ("compare", 2, 1)):
        said = champion(*words)
        assert "0.99" not in f"{said.document}{said.err}", words
    unknown = champion("compare", 7)
    assert (unknown.code, "it has: 1, 2, 3" in unknown.document["error"]) == (10, True)


@pytest.mark.slow
def test_the_first_ensemble_is_shown_with_its_members_and_has_a_history(held: Any, tournament: Any) -> None:
    first = tournament("champion", "history", "--home", held.home, "--json").document[0]
    assert (first["kind"], first["version"], first["tournament"]) == ("promote", 1, held.document["tournament"])
    shown = tournament("champion", "show", "--home", held.home)
    assert shown.code == 0, shown.err
    assert "models:/esci-ensemble@champion" in shown.out + shown.err
    assert ", approved; tournament doctor compares them" in shown.out + shown.err
