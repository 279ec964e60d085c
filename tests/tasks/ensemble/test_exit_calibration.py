from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.worlds import World, make_world
from esci_tournament.registry.errors import UsageError
from esci_tournament.tasks.ensemble.aggregate import AggregatorParameters
from esci_tournament.tasks.ensemble.early_exit import EarlyExit, margins
from esci_tournament.tasks.ensemble.exit_calibration import (
    RISKS,
    Curve,
    ExitTrial,
    calibrate_exit,
    last_below,
    set_aside,
)
from esci_tournament.tasks.ensemble.fitting import fit_aggregator
from esci_tournament.tasks.ensemble.subsets import Subsets

PARAMETERS = AggregatorParameters(learning_rate=0.3, maximum_rounds=25, patience=3, depth=3, threads=1)
MILLISECONDS = (2.0, 6.0, 12.0, 20.0)
BLEND, RISK = 6000, 0.01  # pairs of some 1,500 queries: too few for half a per cent


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(1, rows=3 * BLEND, members=4, pairs_a_query=4, kinds=("plain", "duplicate", "plain", "duplicate"))


@pytest.fixture(scope="module")
def blend(world: World) -> np.ndarray:
    keys = np.unique(world.groups)
    return np.isin(world.groups, np.random.default_rng(0).permutation(keys)[: len(keys) // 3])


@pytest.fixture(scope="module")
def subsets(world: World, blend: np.ndarray) -> Subsets:
    own = world.columns[blend], world.labels[blend], world.groups[blend]
    return Subsets.fit(*own, fit_aggregator(*own, world.members, PARAMETERS))


def calibrate(world: World, blend: np.ndarray, subsets: Subsets, risk: float) -> EarlyExit:
    stages = [subsets.out_of_fold[world.members[:count]] for count in range(1, 5)]
    return calibrate_exit(world.members, stages, world.labels[blend], world.groups[blend], MILLISECONDS, risk)


@pytest.fixture(scope="module")
def rule(world: World, blend: np.ndarray, subsets: Subsets) -> EarlyExit:
    return calibrate(world, blend, subsets, RISK)


def test_labels_of_fresh_queries_differ_within_the_risk_and_time_is_saved(
    world: World, blend: np.ndarray, subsets: Subsets, rule: EarlyExit
) -> None:
    fresh = world.columns[~blend]
    whole = subsets.best(world.members)[0].predict(fresh)
    for level in rule.levels:
        used, label, done = np.zeros(len(fresh)), np.zeros(len(fresh), dtype=np.int8), np.zeros(len(fresh), dtype=bool)
        for stage in range(1, 5):
            used += ~done
            aggregator = subsets.best(world.members[:stage])[0]
            scores = aggregator.decision_scores(aggregator.predict_proba(fresh[:, :stage]))
            leaves = ~done & rule.at(level.risk).sure(stage, scores)
            label[leaves], done = scores[leaves].argmax(axis=1), done | leaves
        assert done.all()
        assert (label != whole).mean() <= level.risk
        assert 1 - used.mean() / 4 == pytest.approx(level.calls_saved, abs=0.05)
    assert rule.level.risk == RISK
    assert rule.level.calls_saved > 0.1
    assert rule.level.milliseconds_saved > rule.level.calls_saved  # the dear members come last


def test_what_is_told_of_a_level_is_true(rule: EarlyExit) -> None:
    assert [level.risk for level in rule.levels] == list(RISKS)
    assert [level.on for level in rule.levels] == [False, False, False, True, True]
    for level in rule.levels:
        assert level.disagreement <= level.bound <= level.risk
        assert level.on == (level.reason == "")
        assert sum(level.exits) == pytest.approx(1)
        run = sum(share * number for number, share in enumerate(level.exits, 1))
        assert 1 - run / 4 == pytest.approx(level.calls_saved)


def test_a_larger_risk_lets_more_go_at_every_stage(rule: EarlyExit) -> None:
    thresholds = np.array([[np.inf if one is None else one for one in level.thresholds] for level in rule.levels])
    assert (thresholds[1:] <= thresholds[:-1]).all()
    assert (np.diff([level.milliseconds_saved for level in rule.levels]) >= 0).all()


def test_at_no_risk_nobody_is_let_go(world: World, blend: np.ndarray, subsets: Subsets) -> None:
    rule = calibrate(world, blend, subsets, 0.0)
    assert not rule.on
    assert "set to 0" in rule.reason


def test_too_few_queries_let_nobody_go_and_say_how_many_it_takes(
    world: World, blend: np.ndarray, subsets: Subsets, rule: EarlyExit
) -> None:
    queries = len(np.unique(world.groups[blend]))
    half = rule.at(0.005)
    assert not half.on
    assert half.reason.startswith(f"{queries:,} queries, the largest with 0.")
    assert "at most 0.5 % of labels change: that takes about 1," in half.reason
    one = world.groups[blend] == world.groups[blend][0]
    stages = [subsets.out_of_fold[world.members[:count]][one] for count in range(1, 5)]
    alone = calibrate_exit(world.members, stages, world.labels[blend][one], world.groups[blend][one], MILLISECONDS, 0.5)
    assert alone.reason == "1 queries are too few to show anything"


def test_a_tenth_of_the_queries_is_set_aside_and_never_the_largest() -> None:
    random = np.random.default_rng(0)
    keys, sizes = random.integers(0, 2**63, 1000, dtype=np.uint64), np.arange(1, 1001)
    groups = random.permutation(np.repeat(keys, sizes))
    chosen = set_aside(groups)
    taken = sizes[np.isin(keys, groups[chosen])]
    assert len(taken) == 100
    assert taken.max() == 996
    assert taken.mean() == pytest.approx(sizes.mean(), rel=0.01)
    assert not set_aside(groups[np.isin(groups, keys[:4])]).any()


def test_one_giant_query_turns_early_exit_off_and_is_named() -> None:
    random = np.random.default_rng(0)
    sizes = np.append(np.full(2999, 5), 1000)
    groups = np.repeat(random.permutation(np.arange(1, 3001, dtype=np.uint64) * 0x9E3779B97F4A7C15), sizes)
    scores = np.eye(4)[np.zeros(len(groups), dtype=int)] * random.exponential(2.0, len(groups))[:, None]
    labels = np.zeros(len(groups), dtype=np.int8)  # no label ever changes
    small = np.isin(groups, groups[:-1000])
    rules = [
        calibrate_exit(("a", "b"), [scores[rows]] * 2, labels[rows], groups[rows], (1.0, 1.0), 0.005)
        for rows in (small, np.ones(len(groups), dtype=bool))
    ]
    assert rules[0].on
    assert rules[0].level.calls_saved == 0.5
    assert not rules[1].on
    assert rules[1].reason.startswith("3,000 queries, the largest with 6.9 % of the pairs, cannot show")


def test_rules_are_tested_on_queries_that_their_curves_have_not_seen(
    world: World, blend: np.ndarray, subsets: Subsets
) -> None:
    # The labels of the last stage are scrambled where rules are tested: the rules may not change by that
    groups, labels = world.groups[blend], world.labels[blend]
    stages = [subsets.out_of_fold[world.members[:count]] for count in range(1, 5)]
    tested = ~set_aside(groups)
    scrambled = stages[-1].copy()
    scrambled[tested] = np.roll(scrambled[tested], 1, axis=1)
    before = ExitTrial.of(stages, labels, groups, MILLISECONDS, tested)
    after = ExitTrial.of([*stages[:-1], scrambled], labels, groups, MILLISECONDS, tested)
    assert np.array_equal(before.thresholds(0.05), after.thresholds(0.05))
    assert before.wrong.sum() < after.wrong.sum()
    assert before.sizes.sum() == tested.sum()


def test_one_member_and_what_does_not_fit(world: World) -> None:
    one = np.full((10, 4), 0.25, dtype=np.float32)
    labels, groups = np.zeros(10, np.int8), np.arange(10, dtype=np.uint64)
    assert calibrate_exit(("only",), [one], labels, groups, (1.0,), 0.005).reason == "the ensemble has one member"
    with pytest.raises(UsageError, match="2 members, 1 stages"):
        calibrate_exit(("a", "b"), [one], labels, groups, (1.0, 1.0), 0.005)


def test_a_stage_after_which_nothing_ever_changes_lets_everybody_go() -> None:
    random = np.random.default_rng(0)
    curve = Curve.fit(random.exponential(size=4000), np.zeros(4000, dtype=bool))
    assert curve.margin_of(0.01) == 0
    assert curve.margin_of(1e-6) == float("inf")


def test_a_curve_finds_the_chance_that_it_was_drawn_from() -> None:
    random = np.random.default_rng(0)
    margin = random.exponential(2.0, size=40_000)
    changes = random.random(40_000) < 1 / (1 + np.exp(-(0.5 - 1.5 * margin)))
    curve = Curve.fit(margin, changes)
    assert curve.intercept == pytest.approx(0.5, abs=0.1)
    assert curve.slope == pytest.approx(1.5, abs=0.1)
    assert curve.margin_of(0.05) == pytest.approx((0.5 - np.log(0.05 / 0.95)) / 1.5, rel=0.05)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(0, 1), st.floats(0, 1))
def test_fixed_sequence_testing_stops_at_the_first_failure(bounds: list[float], low: float, high: float) -> None:
    low, high = sorted((low, high))
    array = np.array(bounds)
    taken = last_below(array, low)
    if taken is None:
        assert array[0] > low
    else:
        assert (array[: taken + 1] <= low).all()
        assert taken + 1 == len(array) or array[taken + 1] > low
        assert last_below(array, high) >= taken


def test_rules_and_margins_speak_of_the_same_numbers(rule: EarlyExit, subsets: Subsets, world: World) -> None:
    stage = subsets.out_of_fold[world.members[:2]]
    threshold = rule.level.thresholds[1]
    assert threshold is not None
    assert np.array_equal(rule.sure(2, stage), margins(stage) >= threshold)
    moved = replace(rule, level=replace(rule.level, thresholds=(None, None, None)))
    assert not moved.sure(2, stage).any()
