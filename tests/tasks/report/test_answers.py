"""The first screen: four questions, and what a reviewer reads when all went well and when not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from esci_tournament.tasks.report.answers import answers
from esci_tournament.tasks.report.sealing import published
from esci_tournament.tasks.report.summary import Summary
from tests.tasks.report.conftest import build, sparse

ROW = {"scope": "all", "metric": "macro_f1", "difference_low": 0.0104, "difference_high": 0.0371}


def said(summary: Summary) -> dict[str, str]:
    found = answers(summary)
    assert [one.question for one in found] == ["What changes", "By how much", "Is it safe", "What to do"]
    return {one.question: " ".join(one.lines) for one in found}


def verdict(**changes: Any) -> dict[str, Any]:
    return build().verdict | changes


def test_of_a_promotion_the_gain_stands_with_its_interval_and_the_way_back() -> None:
    told = said(build(verdict=verdict(metrics=[ROW])))
    assert told["What changes"].startswith("In: e5-small v1; out: sage-impressions v1 and gcn-purchases v1; stay: ")
    gain = "Macro F1 0.540 → 0.563 on the test split: +0.024 (95 % interval +0.010 to +0.037)."
    assert told["By how much"].startswith(gain)
    assert "Budget: memory 637 MiB of 800 MiB (80 %)" in told["Is it safe"]
    assert "1 of 2 expectations not met: titles present." in told["Is it safe"]
    assert told["What to do"] == "Nothing: it serves. To go back: `tournament champion rollback --reason WHY`."


def test_a_refused_challenger_changes_nothing_and_shows_no_test_number() -> None:
    whole = build(promoted=False, decision={}, ensemble_version="", verdict=verdict(outcome="refuse", metrics=[ROW]))
    told = said(published(whole, may_serve=False))
    brought = "The challenger would have brought in e5-small v1 and taken out sage-impressions v1 and gcn-purchases v1."
    assert told["What changes"].startswith(f"Nothing. {brought}")
    assert not [number for number in ("0.540", "0.563", "0.024", "0.010") if number in str(told)]
    assert told["What to do"] == "Nothing: the champion serves on."


@pytest.mark.parametrize(("review", "command"), [(7, "`tournament review show 7`"), (None, "`tournament review list`")])
def test_a_review_that_waits_is_named(review: int | None, command: str) -> None:
    told = said(build(promoted=False, decision={}, awaits_review=True, review=review))
    assert told["What changes"].startswith("If it is promoted, in: e5-small v1;")
    assert command in told["What to do"]


def test_guardrails_that_are_hurt_or_cannot_be_judged_do_not_count_as_passed() -> None:
    rows = [
        {"name": "gain", "passed": True, "judged": True},
        {"name": "macro_f1 in locale us", "passed": True, "judged": True},
        {"name": "macro_f1 in locale jp", "passed": True, "judged": False},
        {"name": "calibration", "passed": False, "judged": True},
        {"name": "the best model alone", "passed": True, "judged": True},
    ]
    told = said(build(verdict=verdict(checks=rows)))["Is it safe"]
    expected = "1 of 3 guardrails passed; hurt: calibration; too little data to judge macro F1 in locale jp."
    assert told.startswith(expected)


def test_a_first_ensemble_has_no_champion_and_needs_no_way_back() -> None:
    first = replace(sparse(), promoted=True, ensemble_version="1")
    told = said(first)
    assert told["What changes"].startswith("A first ensemble of minilm-l6 v1.")
    assert "macro F1" not in told["By how much"].split(";")[0]
    assert "there is no champion to compare with" in told["By how much"]
    assert "no guardrails without a champion" in told["Is it safe"]
    assert told["What to do"] == "Nothing: it serves."
