"""The words of the report: numbers, headlines, comparisons."""

import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esci_tournament.registry.reviews import NO_PERSON
from esci_tournament.tasks.report import words
from esci_tournament.tasks.report.summary import Metrics
from tests.tasks.report.conftest import build


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (words.number(0.56345), "0.563"),
        (words.number(None), "–"),
        (words.number(float("nan")), "–"),
        (words.signed(-0.0214), "−0.021"),
        (words.signed(-0.0003), "0.000"),
        (words.share(0.4123), "41.2 %"),
        (words.memory(12.34), "12.3 MiB"),
        (words.memory(1023.6), "1,024 MiB"),
        (words.memory(20480), "20.0 GiB"),
        (words.milliseconds(4.74), "4.7 ms"),
        (words.milliseconds(1234.5), "1,234 ms"),
        (words.parameters(999_960), "1.0 M"),
        (words.parameters(22_713_604), "22.7 M"),
        (words.parameters(812), "812"),
        (words.duration(59.94), "59.9 s"),
        (words.duration(1284.6), "21 min"),
        (words.duration(9000), "2 h 30 min"),
        (words.plain(True), "yes"),
        (words.plain(200.0), "200"),
        (words.plain(1.0), "1.000"),
        (words.plain(float("inf")), "–"),
    ],
)
def test_numbers_have_one_form_each(text, expected):
    assert text == expected


@given(st.text())
def test_clean_text_has_no_control_character_and_is_stable(text):
    cleaned = words.clean(text)
    assert not [letter for letter in cleaned if unicodedata.category(letter) in ("Cc", "Cs")]
    assert words.clean(cleaned) == cleaned


PROMOTE, REFUSE, OPEN = {"outcome": "promote"}, {"outcome": "refuse"}, {"outcome": "not_evaluable"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "The challenger is champion now: version 4 replaces version 3."),
        ({"champion": None, "verdict": OPEN}, "The first champion is installed: version 4."),
        (
            {"promoted": False, "decision": {}},
            "The challenger passed and awaits a decision; until then champion version 3 stays.",
        ),
        (
            {"promoted": False, "decision": {}, "awaits_review": True},
            "The challenger passed and waits for review; until then champion version 3 stays.",
        ),
        (
            {"promoted": False, "awaits_review": True, "champion": None, "champion_version": "", "verdict": OPEN},
            "There is nothing to compare the challenger with, and it waits for review; until then there is still no "
            "champion.",
        ),
        ({"promoted": False}, "Champion version 3 stays; the challenger passed, but was not promoted."),
        ({"promoted": False, "verdict": REFUSE}, "Champion version 3 stays; the challenger is refused."),
        (
            {"promoted": False, "verdict": OPEN, "champion": None, "champion_version": ""},
            "The challenger could not be judged; there is still no champion.",
        ),
    ],
)
def test_headline_says_what_happened(changes, expected, build_summary):
    assert words.headline(build_summary(**changes)) == expected


def test_the_headline_says_when_nobody_beats_the_best_model(build_summary):
    selection = build_summary().selection
    combined = {"rounds": 3, "shares": [0.2, 0.8, 0.0], "offsets": [0.0, 0.25, -0.1, 0.0], "alone": None, "margins": {}}
    plain = build_summary(selection=selection | {"combination": combined})
    assert words.headline(plain) == words.headline(build_summary())
    assert "3 rounds of trees on top of it" in words.regret_sentence(plain)
    assert "plus an offset: S +0.250, C −0.100." in words.regret_sentence(plain)
    alone = build_summary(selection=selection | {"combination": combined | {"alone": "good/1"}})
    assert words.headline(alone).endswith(" No ensemble is ahead of the best model: it answers as good/1 alone.")
    assert "the answer is that of good/1." in words.regret_sentence(alone)
    check = {"name": "the best model alone", "passed": False, "sentence": "against good/1 alone it is worse"}
    best = {"member": "good/1", "value": 0.6}
    worse = build_summary(
        verdict={"outcome": "not_evaluable", "checks": [check]}, selection=selection | {"best_alone": best}
    )
    assert words.headline(worse).endswith(" On the test split it is worse than good/1 alone.")


def test_comparison_is_made_on_exact_values_not_on_rounded_ones(build_summary):
    whole = build_summary()
    own = whole.ensemble
    models = [replace(whole.models[0], test=Metrics(own.accuracy, own.macro_f1 + 1e-4, own.weighted_f1 - 1e-4))]
    sentence = words.comparison(build_summary(models=models))
    assert sentence == (
        "On the test split the ensemble beats every single model on weighted F1; on accuracy minilm-l6 v3 equals it "
        "(0.6822 against 0.6822) and on macro F1 minilm-l6 v3 is ahead (0.5635 against 0.5634)."
    )


def test_cost_of_the_ensemble_is_not_summed_over_unknown_parts(build_summary):
    models = build_summary().models
    models[0] = replace(models[0], cost={}, fit_seconds=None)
    cost = words.ensemble_cost_row(build_summary(models=models))
    assert (cost["parameters"], cost["fit"]) == ("–", "–")


def test_locales_outside_the_data_set_come_last(build_summary):
    extra = {"xx": Metrics(0.1, 0.1, 0.1), **build_summary().ensemble_by_locale}
    assert words.locales(build_summary(ensemble_by_locale=extra)) == ["us", "es", "jp", "xx"]


@pytest.mark.parametrize(
    ("missing", "word", "tone", "reason"),
    [
        (("champion",), "First champion", "good", "There is no champion to compare with"),
        (("newcomers",), "Nothing new", "good", "A/1 could not take part"),
        (("champion", "queries"), "Not evaluable", "warn", "12 test queries are too few"),
        (("locale es",), "Not evaluable", "warn", "Locale es is served but has no test data"),
    ],
)
def test_a_first_champion_is_no_trouble_and_no_word_stands_twice(missing, word, tone, reason) -> None:
    said = f"not evaluable: {reason[0].lower() + reason[1:]}"
    found = build(verdict={"outcome": "not_evaluable", "missing": list(missing), "reason": said})
    assert (words.verdict_words(found), words.tone(found), words.verdict_reason(found)) == (word, tone, reason)


def test_a_promotion_without_a_person_says_so_and_how_a_person_decides() -> None:
    by_verdict = build(decision={"decision": "approve", "by": NO_PERSON, "reason": "it is better"})
    assert "without a person" in words.decision_sentence(by_verdict)
    assert "tournament policy set review=required" in words.decision_sentence(by_verdict)
    by_ana = build(decision={"decision": "approve", "by": "ana", "reason": "it is better"})
    assert words.decision_sentence(by_ana) == "Decision: approve, by ana: it is better"
