"""The trial on the test split: both sides on the same pairs, without leaks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from esci_tournament.registry.errors import LeakError
from esci_tournament.registry.settings import Settings
from esci_tournament.tasks.ensemble.aggregate import Aggregator
from esci_tournament.tasks.ensemble.budget import Budget, Cost
from esci_tournament.tasks.ensemble.fitting import fit_aggregator
from esci_tournament.tasks.ensemble.scores import MemberScores, stack
from esci_tournament.tasks.ensemble.spending import History
from esci_tournament.tasks.ensemble.trial import (
    Side,
    absent_members,
    as_json,
    by_class,
    locales_of,
    metrics_alone,
    run_trial,
    total_cost,
)

SKILLS = {"good/1": 2.5, "weak/1": 0.6}


def made(queries: int, seed: int, locales: tuple[str, ...] = ("us", "es")) -> tuple[pd.DataFrame, list[MemberScores]]:
    rng = np.random.default_rng(seed)
    rows = queries * 8
    pairs = pd.DataFrame(
        {
            "example_id": rng.permutation(rows).astype(np.int64),
            "label": rng.integers(0, 4, rows).astype(np.int8),
            "query_key": np.repeat(rng.integers(1, 2**63, queries, dtype=np.uint64), 8),
            "locale": pd.Categorical(np.repeat(np.array(locales)[np.arange(queries) % len(locales)], 8)),
        }
    )
    members = []
    for name, skill in SKILLS.items():
        # As sure as it is right: members are calibrated before they are combined
        weights = np.exp(skill * (rng.normal(size=(rows, 4)) + skill * np.eye(4)[pairs["label"]]))
        probabilities = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
        members.append(MemberScores(name, pairs["example_id"].to_numpy(), probabilities, np.ones(rows, dtype=bool)))
    return pairs, members


def fitted(*names: str) -> Aggregator:
    pairs, scores = made(60, seed=1)
    columns = stack([one for one in scores if one.member in names], pairs["example_id"].to_numpy())
    return fit_aggregator(columns, pairs["label"].to_numpy(), pairs["query_key"].to_numpy(), names)


PAIRS, SCORES = made(80, seed=2)
GOOD, WEAK = Side(fitted("good/1"), Cost(10, 1)), Side(fitted("weak/1"), Cost(10, 1))
SETTINGS = Settings(home=Path("nowhere"), resamples=200)


def test_a_better_challenger_is_promoted_and_a_worse_one_refused() -> None:
    assert run_trial(PAIRS, SCORES, GOOD, WEAK, History(), SETTINGS).verdict.outcome == "promote"
    assert run_trial(PAIRS, SCORES, WEAK, GOOD, History(), SETTINGS).verdict.outcome == "refuse"


def test_without_a_champion_the_verdict_says_so() -> None:
    verdict = run_trial(PAIRS, SCORES, GOOD, None, History(), SETTINGS).verdict
    assert (verdict.outcome, verdict.missing) == ("not_evaluable", ("champion",))


def test_the_order_of_pairs_and_scores_changes_nothing() -> None:
    shuffled = PAIRS.sample(frac=1, random_state=5)
    one = run_trial(PAIRS, SCORES, GOOD, WEAK, History(), SETTINGS)
    assert as_json(run_trial(shuffled, SCORES[::-1], GOOD, WEAK, History(), SETTINGS)) == as_json(one)


def test_each_side_answers_with_its_own_members() -> None:
    trial = run_trial(PAIRS, SCORES, GOOD, WEAK, History(), SETTINGS)
    answered = GOOD.aggregator.predict(stack(SCORES[:1], PAIRS["example_id"].to_numpy()))
    counts = np.zeros((4, 4), dtype=int)
    np.add.at(counts, (PAIRS["label"].to_numpy(), answered), 1)
    assert trial.confusion == counts.tolist()
    row = trial.verdict.metric("accuracy")
    assert row.challenger == pytest.approx(np.trace(counts) / len(PAIRS))
    assert row.champion < row.challenger


def test_earlier_looks_leave_less_alpha() -> None:
    first, fourth = (run_trial(PAIRS, SCORES, GOOD, WEAK, History(looks), SETTINGS).verdict for looks in (0, 3))
    assert (first.look, fourth.look) == (1, 4)
    assert fourth.level < first.level


def test_one_in_sample_test_score_is_a_leak() -> None:
    learnt = np.ones(len(PAIRS), dtype=bool)
    learnt[3] = False
    with pytest.raises(LeakError, match="good/1 are in-sample for 1"):
        run_trial(PAIRS, [replace(SCORES[0], out_of_sample=learnt), SCORES[1]], GOOD, WEAK, History(), SETTINGS)


def test_a_champion_whose_member_has_no_scores_is_not_compared_with_and_costs_no_look():
    verdict = run_trial(PAIRS, SCORES[:1], GOOD, WEAK, History(2), SETTINGS).verdict
    assert (verdict.outcome, verdict.missing, verdict.spends_look) == ("not_evaluable", ("members",), False)
    assert "its member weak/1 has no scores on this data; it stays" in verdict.reason
    assert absent_members(WEAK.aggregator.members, {"good/1"}) == ("weak/1",)
    # It is no world without a champion, into which anybody may be let
    assert verdict.digest != run_trial(PAIRS, SCORES[:1], GOOD, None, History(2), SETTINGS).verdict.digest


def test_a_challenger_over_the_budget_is_not_promoted() -> None:
    verdict = run_trial(
        PAIRS, SCORES, GOOD, WEAK, History(), SETTINGS.model_copy(update={"budget_memory_mib": 5.0})
    ).verdict
    assert verdict.outcome == "refuse"
    assert not verdict.check("budget").passed


def test_products_that_recur_over_queries_are_judged_as_such() -> None:
    blind = run_trial(PAIRS, SCORES, GOOD, WEAK, History(), SETTINGS).verdict
    places = np.arange(len(PAIRS))
    once, often = (
        run_trial(PAIRS.assign(product=product), SCORES, GOOD, WEAK, History(), SETTINGS, "weak/1").verdict
        for product in (places, places % 10)
    )
    assert once.metrics == blind.metrics
    assert once.digest != often.digest
    assert often.metric("accuracy").difference == once.metric("accuracy").difference
    assert often.check("gain").value <= once.check("gain").value


def test_every_model_is_measured_alone_overall_and_by_locale() -> None:
    alone = run_trial(PAIRS, SCORES, GOOD, None, History(), SETTINGS).alone
    assert {name: set(scopes) for name, scopes in alone.items()} == {name: {"all", "us", "es"} for name in SKILLS}
    hits = SCORES[0].probabilities.argmax(axis=1) == PAIRS["label"].to_numpy()
    assert alone["good/1"]["all"]["accuracy"] == pytest.approx(hits.mean())
    us = (PAIRS["locale"] == "us").to_numpy()
    assert alone["good/1"]["us"]["accuracy"] == pytest.approx(hits[us].mean())


def test_metrics_alone_of_a_perfect_model_are_one() -> None:
    labels = np.array([0, 1, 2, 3], np.int8)
    found = metrics_alone(np.eye(4, dtype=np.float32), labels, np.array(["us", "us", "jp", "jp"]))
    assert set(found["all"].values()) == {1.0}
    assert found["jp"]["accuracy"] == 1.0


def test_a_locale_is_served_when_its_data_is_there() -> None:
    locale = pd.Categorical(["es", "us", "es"], categories=["jp", "es", "us"])
    assert locales_of(pd.DataFrame({"locale": locale})) == ("us", "es")
    assert run_trial(PAIRS, SCORES, GOOD, WEAK, History(), SETTINGS).verdict.outcome != "not_evaluable"
    one_more = run_trial(PAIRS, SCORES, GOOD, WEAK, History(), SETTINGS, served=("us", "es", "jp")).verdict
    assert "locale jp is served but has no test data" in one_more.reason


def test_classes_are_read_off_the_confusion_matrix() -> None:
    rows = by_class([[8, 2, 0, 0], [4, 6, 0, 0], [0, 0, 0, 0], [0, 0, 5, 0]])
    assert rows["E"] == pytest.approx({"precision": 8 / 12, "recall": 0.8, "f1": 16 / 22, "support": 10})
    assert rows["C"] == {"precision": 0.0, "recall": None, "f1": 0.0, "support": 0.0}
    assert rows["I"] == {"precision": None, "recall": 0.0, "f1": 0.0, "support": 5.0}


def test_costs_add_up_and_an_unmeasured_member_makes_them_unknown() -> None:
    costs = {"a/1": Cost(10, 1), "b/1": Cost(5, 2)}
    assert total_cost(["a/1", "b/1"], costs, Budget()) == Cost(15, 3)
    assert total_cost(["a/1", "b/1"], costs, Budget(execution="parallel")) == Cost(15, 2)
    assert total_cost(["a/1", "c/1"], costs, Budget()) is None


def test_a_trial_is_json() -> None:
    json.dumps(as_json(run_trial(PAIRS, SCORES, GOOD, WEAK, History(), SETTINGS)), allow_nan=False)


def test_weights_of_queries_weigh_the_verdict_and_the_models_alone() -> None:
    first = np.isin(PAIRS["query_key"], PAIRS["query_key"].unique()[:40])
    weighted = run_trial(PAIRS.assign(weight=np.where(first, 1.8, 0.2)), SCORES, GOOD, WEAK, History(), SETTINGS)
    plain = run_trial(PAIRS, SCORES, GOOD, WEAK, History(), SETTINGS)
    hits = SCORES[0].probabilities.argmax(axis=1) == PAIRS["label"].to_numpy()
    expected = 0.9 * hits[first].mean() + 0.1 * hits[~first].mean()
    assert weighted.alone["good/1"]["all"]["accuracy"] == pytest.approx(expected)
    assert weighted.verdict.metric("accuracy").challenger != plain.verdict.metric("accuracy").challenger
    assert weighted.confusion == plain.confusion
