"""The linear part of the aggregator: its fits are optimal, its attribution adds up, also with trees on top."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from benchmarks.worlds import make_world
from esci_tournament.registry.errors import StoreError
from esci_tournament.tasks.ensemble.aggregate import Aggregator, AggregatorParameters, softmax
from esci_tournament.tasks.ensemble.attribution import attribute
from esci_tournament.tasks.ensemble.fitting import Choice, cross_validate, fit_aggregator
from esci_tournament.tasks.ensemble.pool import Pool, alone, centred_logs, fit_logistic, fit_pool, mixture

PARAMETERS = AggregatorParameters(threads=1)


@pytest.fixture(scope="module")
def world():
    return make_world(4, rows=1000, members=4)


@pytest.fixture(scope="module")
def logs(world):
    return centred_logs(world.columns)


def loss(pool: Pool, logs: np.ndarray, labels: np.ndarray, ridge: float = 1e-3, bias_ridge: float = 1e-3) -> float:
    """The penalised log loss, written down a second time."""
    shares = softmax(pool.of_logs(logs))
    penalty = ridge * ((pool.weights - 1 / len(pool.weights)) ** 2).sum() + bias_ridge * (pool.bias**2).sum()
    return float(-np.log(shares[np.arange(len(labels)), labels]).mean() + penalty)


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), size=st.sampled_from([0.01, 0.3, 2.0]))
def test_no_other_pool_has_a_smaller_loss(world, logs, seed, size):
    best = fit_pool(logs, world.labels)
    assert (best.weights >= 0).all()
    random = np.random.default_rng(seed)
    other = Pool(
        np.maximum(best.weights + size * random.normal(size=4), 0),
        best.bias + size * random.normal(size=4),
        best.average,
    )
    assert loss(best, logs, world.labels) <= loss(other, logs, world.labels) + 1e-6


@pytest.mark.parametrize("ridge", [1e-1, 1e-3])
@pytest.mark.parametrize("cross", [False, True])
def test_the_logistic_fit_is_the_one_that_a_general_optimiser_finds(world, logs, ridge, cross):
    found = fit_logistic(logs, world.labels, ridge, cross)
    middle = 0.25 * (np.tile(np.eye(4), (4, 1, 1)) if cross else np.ones((4, 4)))

    def of(numbers: np.ndarray) -> float:
        weights = numbers[:-4].reshape(middle.shape)
        shares = softmax(Pool(weights, numbers[-4:], found.average).of_logs(logs))
        penalty = ridge * ((weights - middle) ** 2).sum() + 1e-4 * (numbers[-4:] ** 2).sum()
        return float(-np.log(shares[np.arange(len(shares)), world.labels]).mean() + penalty)

    mine = np.concatenate([found.weights.ravel(), found.bias])
    theirs = minimize(of, np.concatenate([middle.ravel(), np.zeros(4)]), method="L-BFGS-B", options={"maxiter": 200})
    assert of(mine) <= theirs.fun + 1e-7
    stiff = fit_logistic(logs, world.labels, 10 * ridge, cross)
    warm = fit_logistic(logs, world.labels, ridge, cross, start=stiff)
    np.testing.assert_allclose(warm.weights, found.weights, atol=1e-5)


def test_a_class_that_no_pair_has_is_no_error(world, logs):
    labels = np.minimum(world.labels, 1)
    for cross in (False, True):
        found = fit_logistic(logs, labels, 1e-3, cross)
        assert np.isfinite(found.weights).all()
        assert softmax(found.of_logs(logs))[:, 2:].max() < 0.2


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), share=st.floats(0, 1), rounds=st.integers(0, 12), single=st.booleans())
def test_contributions_add_up_to_the_scores_with_and_without_trees(world, seed, share, rounds, single):
    choice = Choice(0, alone=seed % 4) if single else Choice(rounds, shares=(share / 2, 1 - share, share / 2))
    fitted = fit_aggregator(world.columns, world.labels, world.groups, world.members, PARAMETERS, choice)
    columns = np.random.default_rng(seed).dirichlet(np.ones(4) * 0.3, size=(60, 4)).astype(np.float32)
    values, base = attribute(fitted, columns)
    np.testing.assert_allclose(base + values.sum(axis=2), fitted.raw_scores(columns), atol=1e-9)
    shares = fitted.predict_proba(columns)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-5)
    if single:
        np.testing.assert_allclose(shares, columns[:, seed % 4], atol=1e-4)  # below 1e-5 it is 1e-5
        assert np.array_equal(fitted.predict(columns), columns[:, seed % 4].argmax(axis=1))
        assert (np.delete(values, seed % 4, axis=2) == 0).all()


def test_a_mixture_is_the_weighted_sum_of_its_parts(world, logs):
    one, *others = (fit_pool(logs, world.labels), *(fit_logistic(logs, world.labels, 1e-2, c) for c in (False, True)))
    for other in others:
        both = mixture([(0.3, one), (0.7, other), (0.0, alone(4, 1, world.columns))])
        np.testing.assert_allclose(both.of_logs(logs), 0.3 * one.of_logs(logs) + 0.7 * other.of_logs(logs))
        np.testing.assert_allclose(both.base, 0.3 * one.base + 0.7 * other.base)
    np.testing.assert_allclose(alone(4, 2, world.columns).of_logs(logs), logs[:, 2])


def test_on_average_over_the_pairs_learnt_from_a_pool_credits_nobody(world, logs):
    for pool in (
        fit_pool(logs, world.labels),
        fit_logistic(logs, world.labels, 1e-2, True),
        alone(4, 0, world.columns),
    ):
        np.testing.assert_allclose(pool.contributions(world.columns).mean(axis=0), 0, atol=1e-12)


def test_a_member_that_knows_nothing_has_hardly_a_weight_and_twins_share_one(world):
    random = np.random.default_rng(0)
    good = world.columns[:, 0]
    noise = random.dirichlet(np.ones(4), size=len(good)).astype(np.float32)
    by_itself = fit_pool(centred_logs(good[:, None]), world.labels).weights[0]
    twins = fit_pool(centred_logs(np.stack([good, good, noise], axis=1)), world.labels).weights
    assert twins[0] == pytest.approx(twins[1], abs=1e-3)
    assert twins[0] + twins[1] == pytest.approx(by_itself, rel=0.1)
    assert twins[2] < 0.1 * by_itself


def test_a_member_that_is_sure_and_wrong_costs_no_more_than_the_floor():
    columns = np.array([[[1.0, 0.0, 0.0, 0.0]]], dtype=np.float32)
    assert np.isfinite(centred_logs(columns)).all()
    assert centred_logs(columns).min() == pytest.approx(np.log(1e-5) * 0.25)


def test_it_is_read_as_it_was_written_and_damage_is_noticed(world, tmp_path):
    choice = Choice(3, offsets=(0.0, 0.1, 0.4, -0.2))
    fitted = fit_aggregator(world.columns, world.labels, world.groups, world.members, PARAMETERS, choice)
    fitted.save(tmp_path)
    again = Aggregator.load(tmp_path)
    np.testing.assert_array_equal(again.predict_proba(world.columns), fitted.predict_proba(world.columns))
    np.testing.assert_array_equal(again.predict(world.columns), fitted.predict(world.columns))
    assert again.digest() == fitted.digest()
    card = json.loads((tmp_path / "aggregator.json").read_text())
    for change in (
        {"pool": card["pool"] | {"average": card["pool"]["average"][1:]}},
        {"pool": card["pool"] | {"weights": [[1.0, 2.0]] * 4}},
        {"offsets": [0.0, 1.0]},
        {"offsets": [0.0, 1.0, float("nan"), 0.0]},
        {"alone": "a stranger"},
    ):
        (tmp_path / "aggregator.json").write_text(json.dumps(card | change))
        with pytest.raises(StoreError, match="cannot be read"):
            Aggregator.load(tmp_path)


def test_a_card_of_an_earlier_release_is_read_with_its_digest(world, tmp_path):
    fitted = fit_aggregator(world.columns, world.labels, world.groups, world.members, PARAMETERS, Choice(3))
    fitted.save(tmp_path)
    card = json.loads((tmp_path / "aggregator.json").read_text())
    card["pool"]["weights"] = [0.2, 0.3, 0.4, 0.1]  # one a member
    card["parameters"] = {name: value for name, value in card["parameters"].items() if name != "metric"}
    card["parameters"] |= {"balance": 0.5, "start": "pool"}
    del card["offsets"], card["alone"]
    (tmp_path / "aggregator.json").write_text(json.dumps(card))
    old = Aggregator.load(tmp_path)
    assert not any(old.offsets)
    probabilities = old.predict_proba(world.columns)
    np.testing.assert_array_equal(old.predict(world.columns), probabilities.argmax(axis=1))
    np.testing.assert_allclose(old.pool.full[:, 2, 2], [0.2, 0.3, 0.4, 0.1])
    del card["pool"]  # as the first releases wrote it
    (tmp_path / "aggregator.json").write_text(json.dumps(card))
    assert Aggregator.load(tmp_path).pool is None


def test_the_order_of_the_pairs_changes_nothing(world):
    order = np.random.default_rng(1).permutation(len(world.labels))
    one = fit_aggregator(world.columns, world.labels, world.groups, world.members, PARAMETERS)
    other = fit_aggregator(world.columns[order], world.labels[order], world.groups[order], world.members, PARAMETERS)
    assert one.digest() == other.digest()


def test_where_a_weighted_mean_says_nothing_the_trees_learn_it():
    random = np.random.default_rng(0)
    pairs = 4000
    groups = np.repeat(random.integers(1, 2**63, pairs // 10, dtype=np.uint64), 10)
    first, second = random.integers(0, 2, (2, pairs))
    labels = (first ^ second).astype(np.int8)  # neither member alone says anything of it
    columns = np.full((pairs, 2, 4), 0.1, dtype=np.float32)
    for place, bit in enumerate((first, second)):
        columns[np.arange(pairs), place, 2 * (bit == 1)] = 0.7
    found = cross_validate(columns, labels, groups, PARAMETERS)
    assert (found.decision_scores.argmax(axis=1) == labels).mean() > 0.99


def test_folds_may_end_before_the_first_tree():
    world = make_world(2, rows=700, members=2, kinds=("plain", "useless"))
    found = cross_validate(world.columns, world.labels, world.groups, PARAMETERS)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, atol=1e-5)
    fitted = fit_aggregator(world.columns, world.labels, world.groups, world.members, PARAMETERS, Choice(0))
    pool = fitted.pool
    assert pool is not None
    np.testing.assert_allclose(fitted.raw_scores(world.columns), pool.raw_scores(world.columns))
