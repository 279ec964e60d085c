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
from esci_tournament.tasks.ensemble.exit_calibration import RISKS, Curve, ExitTrial, calibrate_exit, last_below
from esci_tournament.tasks.ensemble.fitting import fit_aggregator, fold_of
from esci_tournament.tasks.ensemble.subsets import Subsets

PARAMETERS = AggregatorParameters(learning_rate=0.3, maximum_rounds=25, patience=3, depth=3, threads=1)
MILLISECONDS = (2.0, 6.0, 12.0, 20.0)
BLEND = 6000


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(1, rows=3 * BLEND, members=4, kinds=("plain", "duplicate", "plain", "duplicate"))


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
    return calibrate_exit(
        world.members, stages, world.labels[blend], world.groups[blend], MILLISECONDS, risk, PARAMETERS.folds
    )


@pytest.fixture(scope="module")
def rule(world: World, blend: np.ndarray, subsets: Subsets) -> EarlyExit:
    return calibrate(world, blend, subsets, 0.005)


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
    assert rule.level.risk == 0.005
    assert rule.level.calls_saved > 0.1
    assert rule.level.milliseconds_saved > rule.level.calls_saved  # the dear members come last


def test_what_is_told_of_a_level_is_true(rule: EarlyExit) -> None:
    assert [level.risk for level in rule.levels] == list(RISKS)
    for level in rule.levels:
        assert level.disagreement <= level.bound <= level.risk
        assert sum(level.exits) == pytest.approx(1)
        run = sum(share * number for number, share in enumerate(level.exits, 1))
        assert 1 - run / 4 == pytest.approx(level.calls_saved)


def test_a_larger_risk_lets_more_go_at_every_stage(rule: EarlyExit) -> None:
    thresholds = np.array([[np.inf if one is None else one for one in level.thresholds] for level in rule.levels])
    assert (np.diff(thresholds, axis=0)[np.isfinite(thresholds[1:])] <= 0).all()
    assert (np.diff([level.milliseconds_saved for level in rule.levels]) >= 0).all()


def test_at_no_risk_nobody_is_let_go(world: World, blend: np.ndarray, subsets: Subsets) -> None:
    rule = calibrate(world, blend, subsets, 0.0)
    assert not rule.on
    assert "set to 0" in rule.reason


def test_too_few_pairs_let_nobody_go_and_say_how_many_it_takes(
    world: World, blend: np.ndarray, subsets: Subsets
) -> None:
    few = np.isin(world.groups[blend], np.unique(world.groups[blend])[:15])
    labels, groups = world.labels[blend][few], world.groups[blend][few]
    stages = [subsets.out_of_fold[world.members[:count]][few] for count in range(1, 5)]
    rule = calibrate_exit(world.members, stages, labels, groups, MILLISECONDS, 0.005, PARAMETERS.folds)
    assert not rule.on
    assert f"{len(labels)} pairs of 15 queries" in rule.reason
    assert "600 at least" in rule.reason


def test_a_query_is_judged_by_curves_that_have_not_seen_it(world: World, blend: np.ndarray, subsets: Subsets) -> None:
    # The labels of one fold's last stage are scrambled: how its own pairs leave may not change by that
    groups = world.groups[blend]
    stages = [subsets.out_of_fold[world.members[:count]] for count in range(1, 5)]
    first = fold_of(groups, 5) == 0
    scrambled = stages[-1].copy()
    scrambled[first] = np.roll(scrambled[first], 1, axis=1)
    before = ExitTrial.of(stages, groups, MILLISECONDS, 5).walk(0.05)
    after = ExitTrial.of([*stages[:-1], scrambled], groups, MILLISECONDS, 5).walk(0.05)
    assert np.array_equal(before.stage[first], after.stage[first])
    assert not np.array_equal(before.stage[~first], after.stage[~first])


def test_one_member_and_what_does_not_fit(world: World) -> None:
    one = np.full((10, 4), 0.25, dtype=np.float32)
    labels, groups = np.zeros(10, np.int8), np.arange(10, dtype=np.uint64)
    assert calibrate_exit(("only",), [one], labels, groups, (1.0,), 0.005, 5).reason == "the ensemble has one member"
    with pytest.raises(UsageError, match="2 members, 1 stages"):
        calibrate_exit(("a", "b"), [one], labels, groups, (1.0, 1.0), 0.005, 5)


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
