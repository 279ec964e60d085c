"""What is told of a verdict: by whom it was asked for, and in which words."""

from __future__ import annotations

from typing import Any

import pytest

from esci_tournament.registry.checks import SINGLE
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.sealing import WHY, of_record, published, sealed

pytestmark = pytest.mark.databases("sqlite")


def check(name: str, passed: bool, sentence: str = "it is 0.1234") -> dict[str, Any]:
    return {
        "name": name,
        "passed": passed,
        "judged": True,
        "value": 0.1234,
        "threshold": 0.0,
        "sentence": sentence,
        "of a later release": 0.1234,
    }


def verdict(outcome: str, *checks: dict[str, Any], **rest: Any) -> dict[str, Any]:
    row = {"scope": "all", "metric": "macro_f1", "queries": 40, "pairs": 700, "challenger": 0.1234, "champion": 0.1234}
    whole = {"outcome": outcome, "reason": "it is 0.1234", "route": "gain", "checks": list(checks), "metrics": [row]}
    whole |= {"missing": [], "cautions": ["it is 0.1234"], "look": 2, "level": 0.01, "alpha_left": 0.6}
    return whole | {"spends_look": True, "digest": "1234", "of a later release": 0.1234} | rest


BUDGET = check("budget", True, "it fits the budget") | {"value": -0.5, "of a later release": None}


@pytest.mark.parametrize(
    ("checks", "reason"),
    [
        ([check("gain", False), BUDGET], "refused: the test split does not show that it is better without harm"),
        ([check("gain", True), check("accuracy", False)], "refused: the test split does not show that it is better"),
        ([check("gain", True), BUDGET | {"passed": False}], "refused: it exceeds the budget; the numbers"),
        (
            [check("cheaper", False, "it is cheaper (20% less memory, 12% less time); macro_f1 is at least 0.1234")],
            "refused: it is cheaper (20% less memory, 12% less time), but the test split does not rule out",
        ),
        ([check("cheaper", True, "it is (0.1234 less memory)")], "refused: it is cheaper, but the test split does not"),
    ],
)
def test_a_refusal_says_why_without_a_number_of_the_test_split(checks: list[dict[str, Any]], reason: str) -> None:
    told = sealed(verdict("refuse", *checks))
    assert told["reason"].startswith(reason)
    assert told["reason"].endswith(WHY)
    assert [one["name"] for one in told["checks"]] == ["budget"] * ("budget" in [one["name"] for one in checks])
    assert (told["queries"], told["pairs"], told["look"], told["alpha_left"]) == (40, 700, 2, 0.6)
    assert "1234" not in str(told)


def test_what_was_missing_is_told_in_its_own_words() -> None:
    told = sealed(verdict("not_evaluable", reason="not evaluable: 40 test queries are too few", missing=["queries"]))
    assert (told["reason"], told["missing"]) == ("not evaluable: 40 test queries are too few", ["queries"])
    assert "1234" not in str(told)


def test_a_model_that_is_no_member_has_no_number_in_a_verdict_that_is_told() -> None:
    single = check(SINGLE, False, "against b/1 alone, the best model: macro_f1 -0.1234")
    whole = verdict("not_evaluable", check("gain", True), single, cautions=[single["sentence"], "look 9"])
    assert published(whole, True, ["a/1", "b/1"], "b/1") == published(whole, True, ["a/1"], None) == whole
    told = published(whole, True, ["a/1"], "b/1")
    assert told["checks"][0] == whole["checks"][0]
    assert "1234" not in str(told["checks"][1]) + str(told["cautions"])
    assert told["cautions"] == [told["checks"][1]["sentence"], "look 9"]
    assert "it is worse" in told["cautions"][0]


@pytest.mark.parametrize(
    ("outcome", "missing", "registered", "is_sealed"),
    [
        ("promote", [], True, False),
        ("promote", [], False, True),
        ("refuse", [], True, True),
        ("not-evaluable", ["champion"], True, False),
        ("not-evaluable", ["champion"], False, True),
        ("not-evaluable", ["scores"], True, True),
    ],
)
def test_a_verdict_on_record_is_told_if_a_reviewer_may_be_asked_about_it(
    outcome: str, missing: list[str], registered: bool, is_sealed: bool, ledger: Ledger
) -> None:
    ledger.record_data_version("data")
    ledger.start_tournament("t", "data")
    whole = verdict(outcome.replace("-", "_"), missing=missing, judged_again={"verdict": 1, "champion": 2})
    record = ledger.record_verdict("t", outcome, whole)
    if registered:
        ledger.record_ensemble("t", "e", 1, {"members": ["a/1"], "best_alone": "a/1"})
    told = of_record(ledger, record)
    assert told.get("sealed", False) == is_sealed
    assert told["judged_again"] == {"verdict": 1, "champion": 2}
    assert is_sealed or told == whole
