"""`tournament champion restore`, `refresh` and `attest`."""

from __future__ import annotations

from typing import Any

import pytest

from esci_tournament.registry.workspace import Workspace


def test_an_alias_that_was_moved_by_hand_is_put_back(champion: Any, versions: Workspace) -> None:
    versions.models.set_alias("champion", 3)
    assert champion("restore").document == [{"alias": "champion", "was": 3, "is": 2}]
    assert champion("restore").document == []


@pytest.mark.slow
def test_a_champion_with_a_manifest_is_not_attested_again(held: Any, tournament: Any) -> None:
    answer = tournament("champion", "attest", "--reason", "a test", "--home", held.home)
    assert answer.code == 2, answer.err
    assert "a manifest never changes" in answer.err


@pytest.mark.slow
@pytest.mark.parametrize("part", [("show",), ("rollback", "--reason", "a test"), ("attest", "--reason", "a test")])
def test_a_home_without_a_champion_says_so(part: Any, tournament: Any, tmp_path: Any) -> None:
    answer = tournament("champion", *part, "--home", tmp_path / "home", "--json")
    assert answer.code == 10, answer.err
    assert "Traceback" not in answer.err
    assert answer.document["exit_code"] == 10
