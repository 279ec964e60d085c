"""`tournament champion rollback`, `set` and `undo`: what serves is what was said, and nothing that was not approved."""

from __future__ import annotations

from typing import Any

import pytest

from esci_tournament.registry.workspace import Workspace


def aliases(workspace: Workspace) -> tuple[int | None, int | None]:
    return workspace.models.alias("champion"), workspace.models.alias("previous")


def test_a_version_is_set_taken_back_and_set_again_by_a_second_undo(champion: Any, versions: Workspace) -> None:
    made = champion("set", "v3", "--reason", "the logs were at fault")
    assert (made.code, made.document["version"], made.document["changed"]) == (0, 3, True), made.err
    assert aliases(versions) == (3, 2)
    again = champion("set", 3, "--reason", "the logs were at fault").document
    assert (again["changed"], again["sequence"]) == (False, made.document["sequence"])
    assert champion("undo", "--reason", "typed wrong").document["version"] == 2
    assert aliases(versions) == (2, 1)
    assert champion("undo", "--reason", "it was right").document["version"] == 3
    assert aliases(versions) == (3, 2)
    kinds = [(row["kind"], row["version"], row["replaced"]) for row in champion("history").document]
    assert kinds == [("promote", 1, None), ("promote", 2, 1), ("set", 3, 2), ("undo", 2, 3), ("undo", 3, 2)]


def test_a_rollback_over_two_champions_is_one_change_and_goes_backwards_only(
    champion: Any, versions: Workspace
) -> None:
    champion("set", 3, "--reason", "a test")
    assert champion("rollback", "--to", 1, "--reason", "all since were slow").document["version"] == 1
    assert aliases(versions) == (1, None)
    forwards = champion("rollback", "--to", 3, "--reason", "no")
    assert forwards.code == 10, "there is no champion before version 1"
    champion("undo", "--reason", "a test")
    champion("rollback", "--to", 2, "--reason", "slow")
    forwards = champion("rollback", "--to", 3, "--reason", "no")
    assert forwards.code == 2
    assert "tournament champion set 3 --reason" in forwards.document["error"]
    assert aliases(versions) == (2, 1)


def test_what_was_refused_or_does_not_exist_is_not_set(champion: Any, versions: Workspace, tmp_path: Any) -> None:
    ledger = versions.ledger
    ledger.start_tournament("t4", "data-1")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a").write_text("x")
    versions.models.register_ensemble(tmp_path / "files", ["m4/1"], "t4")
    ledger.record_ensemble("t4", "esci-ensemble", 4, {"members": ["m4/1"]})
    never = champion("set", 4, "--reason", "I want it")
    assert (never.code, never.document["kind"]) == (12, "PolicyError")
    verdict = ledger.record_verdict("t4", "promote", against=2)
    ledger.record_decision(verdict.id, "refuse", "ben", "too dear")
    refused = champion("set", 4, "--reason", "I want it")
    assert refused.code == 12
    assert "refuse by ben (too dear)" in refused.document["error"]
    assert champion("set", 9, "--reason", "what?").code == 10
    assert aliases(versions) == (2, 1)


@pytest.mark.parametrize("word", ["three", "0", "-1", "esci-ensemble"])
def test_a_version_is_a_number(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    from esci_tournament.deployments.cli import build_parser

    with pytest.raises(SystemExit):
        build_parser().parse_args(["champion", "compare", f" {word}"])
    assert "is no version" in capsys.readouterr().err
