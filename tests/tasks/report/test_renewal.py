"""The report of a re-evaluation: champion before and after, drift, excluded models, or that nothing changed."""

from __future__ import annotations

from typing import Any

from esci_tournament.tasks.report.renewal import as_markdown, in_words


def side(value: float) -> dict[str, Any]:
    return {"metrics": {"all": {"macro_f1": value, "accuracy": 0.6, "weighted_f1": 0.55}}}


FACTS: dict[str, Any] = {
    "unchanged": False,
    "data_version": "abcdef0123456789",
    "champion": "esci-ensemble/1",
    "champion_before": side(0.5),
    "champion_after": side(0.45),
    "bench": ["late/2"],
    "excluded": {"gone/1": "failed in t-1: *no* memory | left"},
    "kept": ["first/1", "late/2"],
    "verdict": "not_evaluable",
    "drifted": ["class mix: Irrelevant 14 % of pairs before, 29 % now"],
}


def test_the_champion_is_told_before_and_after() -> None:
    words = in_words(FACTS)
    assert "Macro F1 of esci-ensemble/1: 0.500 before, 0.450 now." in words
    assert "Bench: late/2; kept: first/1, late/2. Verdict: not evaluable." in words
    assert "| Macro F1 | 0.500 | 0.450 | −0.050 |" in as_markdown(FACTS)


def test_drift_and_absence_are_listed_and_nothing_steers_the_page() -> None:
    page = as_markdown(FACTS)
    assert "- class mix: Irrelevant 14 % of pairs before, 29 % now" in page
    assert r"- gone/1: failed in t-1: \*no\* memory \| left" in page


def test_a_champion_that_was_never_measured_has_no_before() -> None:
    assert "| Macro F1 | – | 0.450 | – |" in as_markdown(FACTS | {"champion_before": {}})
    assert " of no champion" not in in_words(FACTS | {"champion": "", "champion_before": {}, "champion_after": {}})


def test_nothing_changed_is_one_sentence() -> None:
    facts = {"unchanged": True, "data_version": "abcdef0123456789", "champion": "esci-ensemble/1"}
    assert in_words(facts).startswith("Nothing has changed")
    assert as_markdown(facts) == in_words(facts)


def test_what_it_changes_for_scorers_is_said_where_it_is_known() -> None:
    assert "corers" not in in_words(FACTS)  # of an earlier release
    assert "take" in in_words(FACTS | {"trial": False, "serves": True})
    assert "keep the data" in in_words(FACTS | {"trial": False, "serves": False})
    unchanged = {"unchanged": True, "data_version": "abcdef0123456789", "champion": "esci-ensemble/1"}
    assert "This was a trial" in in_words(unchanged | {"trial": True, "serves": False})
