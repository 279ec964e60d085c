"""The pool of members: its fit is optimal, its attribution adds up, also with trees on top."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.worlds import make_world
from esci_tournament.registry.errors import StoreError
from esci_tournament.tasks.ensemble.aggregate import Aggregator, AggregatorParameters, softmax
from esci_tournament.tasks.ensemble.attribution import attribute
from esci_tournament.tasks.ensemble.fitting import cross_validate, fit_aggregator
from esci_tournament.tasks.ensemble.pool import Pool, centred_logs, fit_pool
from esci_tournament.tasks.ensemble.start import choose_start

PARAMETERS = AggregatorParameters(threads=1, start="pool")


@pytest.fixture(scope="module")
def world():
    return make_world(4, rows=1000, members=4)


def loss(pool: Pool, columns: np.ndarray, labels: np.ndarray) -> float:
    """The penalised log loss, written down a second time."""
    shares = softmax(pool.raw_scores(columns))
    ridge = ((pool.weights - 1 / len(pool.weights)) ** 2).sum() + (pool.bias**2).sum()
    return float(-np.log(shares[np.arange(len(labels)), labels]).mean() + 1e-3 * ridge)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.sampled_from([0.01, 0.3, 2.0]))
def test_no_other_pool_has_a_smaller_loss(world, seed, size):
    best = fit_pool(world.columns, world.labels)
    assert (best.weights >= 0).all()
    random = np.random.default_rng(seed)
    other = Pool(
        np.maximum(best.weights + size * random.normal(size=4), 0),
        best.bias + size * random.normal(size=4),
        best.average,
    )
    assert loss(best, world.columns, world.labels) <= loss(other, world.columns, world.labels) + 1e-6


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), start=st.sampled_from(["pool", "nothing"]), rounds=st.integers(0, 12))
def test_contributions_add_up_to_the_scores_with_and_without_trees(world, seed, start, rounds):
    parameters = AggregatorParameters(threads=1, start=start)
    fitted = fit_aggregator(world.columns, world.labels, world.groups, world.members, parameters, rounds)
    columns = np.random.default_rng(seed).dirichlet(np.ones(4) * 0.3, size=(60, 4)).astype(np.float32)
    values, base = attribute(fitted, columns)
    np.testing.assert_allclose(base + values.sum(axis=2), fitted.raw_scores(columns), atol=1e-9)
    shares = fitted.predict_proba(columns)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-5)


def test_on_average_over_the_pairs_learnt_from_a_pool_credits_nobody(world):
    pool = fit_pool(world.columns, world.labels)
    np.testing.assert_allclose(pool.contributions(world.columns).mean(axis=0), 0, atol=1e-12)


def test_a_member_that_knows_nothing_has_hardly_a_weight_and_twins_share_one(world):
    random = np.random.default_rng(0)
    good = world.columns[:, 0]
    noise = random.dirichlet(np.ones(4), size=len(good)).astype(np.float32)
    alone = fit_pool(good[:, None], world.labels).weights[0]
    twins = fit_pool(np.stack([good, good, noise], axis=1), world.labels).weights
    assert twins[0] == pytest.approx(twins[1], abs=1e-3)
    assert twins[0] + twins[1] == pytest.approx(alone, rel=0.1)
    assert twins[2] < 0.1 * alone


def test_a_member_that_is_sure_and_wrong_costs_no_more_than_the_floor():
    columns = np.array([[[1.0, 0.0, 0.0, 0.0]]], dtype=np.float32)
    assert np.isfinite(centred_logs(columns)).all()
    assert centred_logs(columns).min() == pytest.approx(np.log(1e-5) * 0.25)


def test_it_is_read_as_it_was_written_and_damage_is_noticed(world, tmp_path):
    fitted = fit_aggregator(world.columns, world.labels, world.groups, world.members, PARAMETERS)
    fitted.save(tmp_path)
    again = Aggregator.load(tmp_path)
    np.testing.assert_array_equal(again.predict_proba(world.columns), fitted.predict_proba(world.columns))
    assert again.digest() == fitted.digest()
    card = json.loads((tmp_path / "aggregator.json").read_text())
    card["pool"]["average"].pop()
    (tmp_path / "aggregator.json").write_text(json.dumps(card))
    with pytest.raises(StoreError, match="cannot be read"):
        Aggregator.load(tmp_path)
    del card["pool"]  # as earlier versions wrote it
    (tmp_path / "aggregator.json").write_text(json.dumps(card))
    assert Aggregator.load(tmp_path).pool is None


def test_the_order_of_the_pairs_changes_nothing(world):
    order = np.random.default_rng(1).permutation(len(world.labels))
    one = fit_aggregator(world.columns, world.labels, world.groups, world.members, PARAMETERS)
    other = fit_aggregator(world.columns[order], world.labels[order], world.groups[order], world.members, PARAMETERS)
    assert one.digest() == other.digest()


def test_where_pairs_are_few_the_pool_is_chosen_and_pays_on_new_queries():
    better = []
    for seed in range(4):
        world = make_world(50 + seed, rows=6600, members=6)
        few = np.isin(world.groups, np.unique(world.groups)[:30])
        parts = world.columns[few], world.labels[few], world.groups[few]
        start = choose_start(*parts, AggregatorParameters(threads=1))
        assert start.chosen == "pool"
        losses = []
        for name in ("nothing", "pool"):
            fitted = fit_aggregator(*parts, world.members, AggregatorParameters(threads=1, start=name))
            shares = fitted.predict_proba(world.columns[~few])
            losses.append(-np.log(shares[np.arange(len(shares)), world.labels[~few]]).mean())
        better.append(losses[0] - losses[1])
    assert min(better) > 0


def test_where_a_weighted_mean_says_nothing_the_trees_start_from_nothing():
    random = np.random.default_rng(0)
    pairs = 4000
    groups = np.repeat(random.integers(1, 2**63, pairs // 10, dtype=np.uint64), 10)
    first, second = random.integers(0, 2, (2, pairs))
    labels = (first ^ second).astype(np.int8)  # neither member alone says anything of it
    columns = np.full((pairs, 2, 4), 0.1, dtype=np.float32)
    for place, bit in enumerate((first, second)):
        columns[np.arange(pairs), place, 2 * (bit == 1)] = 0.7
    start = choose_start(columns, labels, groups, AggregatorParameters(threads=1))
    assert start.chosen == "nothing" or start.nothing - start.pool < 0.01
    found = cross_validate(columns, labels, groups, AggregatorParameters(threads=1, start="pool"))
    assert (found.probabilities.argmax(axis=1) == labels).mean() > 0.99  # the trees learn it all the same


def test_folds_may_end_before_the_first_tree():
    world = make_world(2, rows=700, members=2, kinds=("plain", "useless"))
    found = cross_validate(world.columns, world.labels, world.groups, PARAMETERS)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, atol=1e-5)
    fitted = fit_aggregator(world.columns, world.labels, world.groups, world.members, PARAMETERS, rounds=0)
    pool = fitted.pool
    assert pool is not None
    np.testing.assert_allclose(fitted.raw_scores(world.columns), pool.raw_scores(world.columns))
