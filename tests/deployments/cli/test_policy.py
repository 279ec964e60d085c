"""`tournament policy`, and what its changes do to the next command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def policy(tournament: Any, tmp_path: Path) -> Any:
    """Run a part of `tournament policy` on a home of the test's own."""
    return lambda *said: tournament("policy", *said, "--home", tmp_path / "home", "--json")


def test_from_no_policy_to_one_that_was_changed_with_a_reason(policy: Any) -> None:
    shown = policy("show").document
    assert (shown["version"], shown["policy"]["reviewers"]) == (None, [])
    changed = policy("set", "review=required", "reviewers=ana, ben", "quorum=2", "--reason", "two look after search")
    assert changed.document["policy"]["reviewers"] == ["ana", "ben"]
    assert policy("set", "quorum=2", "--reason", "again").document["version"] == 1
    one = policy("set", "gain_metrics=primary", "--reason", "labels decide").document["policy"]["gain_metrics"]
    both = policy("set", "gain_metrics=primary, log_loss", "--reason", "both").document["policy"]["gain_metrics"]
    assert (one, both) == (["primary"], ["primary", "log_loss"])
    policy("set", "reviewers=[]", "--reason", "anyone")
    assert [(one["version"], one["changed"]) for one in policy("history").document][-1:] == [(4, ["reviewers"])]
    assert policy("adopt", "--reason", "as the settings say").document["policy"]["review"] == "auto"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (("set", "quorum", "--reason", "x"), "says no value"),
        (("set", "quorum=0", "--reason", "x"), "quorum"),
        (("set", "gain_metrics=luck", "--reason", "x"), "nothing can be gained on 'luck'"),
        (("set", "seed=1", "--reason", "x"), "the policy has no 'seed'"),
        (("set", "quorum=2", "--reason", " "), "needs a reason"),
        (("enrol", " "), "name is missing"),
    ],
)
def test_a_change_that_cannot_be_is_refused(policy: Any, said: tuple[str, ...], words: str) -> None:
    answer = policy(*said)
    assert answer.code == 2
    assert words in answer.document["error"]


def test_a_reviewer_enrols_and_is_withdrawn(policy: Any) -> None:
    enrolled = policy("enrol", "ana")
    assert enrolled.document["address"].startswith("otpauth://totp/")
    assert "names no reviewers" in enrolled.err
    assert policy("show").document["enrolled"] == ["ana"]
    policy("withdraw", "ana")
    assert policy("show").document["enrolled"] == []
