"""`tournament champion`: the current champion, and rollback where there is no earlier one."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow


def test_the_first_ensemble_is_shown_with_its_members_and_has_a_history(held, tournament):
    first = tournament("champion", "history", "--home", held.home, "--json").document[0]
    assert (first["kind"], first["version"], first["tournament"]) == ("promote", 1, held.document["tournament"])
    shown = tournament("champion", "show", "--home", held.home)
    assert shown.code == 0, shown.err
    assert "models:/esci-ensemble@champion" in shown.out + shown.err
    assert ", approved; tournament doctor compares them" in shown.out + shown.err


def test_a_champion_with_a_manifest_is_not_attested_again(held, tournament):
    answer = tournament("champion", "attest", "--reason", "a test", "--home", held.home)
    assert answer.code == 2, answer.err
    assert "a manifest never changes" in answer.err


@pytest.mark.parametrize("part", [("show",), ("rollback", "--reason", "a test"), ("attest", "--reason", "a test")])
def test_a_home_without_a_champion_says_so(part, tournament, tmp_path):
    answer = tournament("champion", *part, "--home", tmp_path / "home", "--json")
    assert answer.code == 10, answer.err
    assert "Traceback" not in answer.err
    assert answer.document["exit_code"] == 10
