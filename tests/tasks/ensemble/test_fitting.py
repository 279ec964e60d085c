from functools import lru_cache

import numpy as np
import pytest
from scipy.stats import norm

from benchmarks.worlds import make_world
from esci_tournament.registry.errors import UsageError
from esci_tournament.tasks.ensemble import fitting
from esci_tournament.tasks.ensemble.aggregate import AggregatorParameters, softmax
from esci_tournament.tasks.ensemble.counts import confusion, metrics_of
from esci_tournament.tasks.ensemble.fitting import cross_validate, fit_aggregator, fold_of
from esci_tournament.tasks.ensemble.rule import tune_once

FAST = AggregatorParameters(maximum_rounds=40, threads=1)


@pytest.fixture(scope="module")
def world():
    return make_world(3, rows=1500, members=3, kinds=("plain", "plain", "weak"))


@pytest.fixture(scope="module")
def aggregator(world):
    return fit_aggregator(world.columns, world.labels, world.groups, world.members, FAST)


def test_the_ensemble_beats_every_member_out_of_fold(world):
    found = cross_validate(world.columns, world.labels, world.groups)
    assert found.choice.alone is None
    assert min(found.margins.values()) > 0
    ensemble = metrics_of(found.counts)
    for member in range(3):
        alone = metrics_of(confusion(world.labels, world.columns[:, member].argmax(axis=1)))
        assert all(ensemble[name] > alone[name] for name in alone)


def test_neither_the_order_of_rows_nor_a_second_run_changes_anything(world, aggregator):
    order = np.random.default_rng(0).permutation(len(world.labels))
    shuffled = fit_aggregator(world.columns[order], world.labels[order], world.groups[order], world.members, FAST)
    assert shuffled.booster.model_to_string() == aggregator.booster.model_to_string()


def test_a_fold_never_splits_a_query_and_follows_from_the_key_alone(world):
    folds = fold_of(world.groups, 5)
    for key in np.unique(world.groups)[:20]:
        assert len(set(folds[world.groups == key].tolist())) == 1
    assert (fold_of(world.groups[:100], 5) == folds[:100]).all()


def test_out_of_fold_rows_are_not_predicted_by_a_model_that_saw_their_query(world, monkeypatch):
    # Labels of one fold's queries are scrambled: only models that learn from that fold may change. What is chosen for
    # all folds together is held fixed.
    monkeypatch.setattr(fitting, "_RIDGES", (1e-2,))
    monkeypatch.setattr(fitting, "_mixing", lambda *_: (0.2, 0.3, 0.5))
    monkeypatch.setattr(
        fitting, "_boost_together", lambda runs, _: [[run.update() for run in runs] for _ in range(5)] and 5
    )
    folds = fold_of(world.groups, FAST.folds)
    labels = world.labels.copy()
    labels[folds == 0] = np.random.default_rng(1).permutation(labels[folds == 0])
    before = cross_validate(world.columns, world.labels, world.groups, FAST)
    after = cross_validate(world.columns, labels, world.groups, FAST)
    assert before.choice.rounds == after.choice.rounds == 5
    np.testing.assert_allclose(before.probabilities[folds == 0], after.probabilities[folds == 0], atol=1e-6)
    assert np.abs(before.probabilities[folds != 0] - after.probabilities[folds != 0]).max() > 0.01


def test_scores_stay_finite_where_lightgbms_default_diverges():
    # Members that are almost always right and sure: hessians of next to nothing
    random = np.random.default_rng(0)
    labels = random.integers(4, size=1000).astype(np.int8)
    columns = np.full((1000, 2, 4), 1e-6, np.float32)
    for member in range(2):
        said = np.where(random.random(1000) < 0.99, labels, random.integers(4, size=1000))
        columns[np.arange(1000), member, said] = 1.0
    fitted = fit_aggregator(columns, labels, np.arange(1000, dtype=np.uint64) // 5, ("a", "b"))
    assert np.abs(fitted.raw_scores(columns)).max() < 20


def test_too_few_queries_are_named(world):
    with pytest.raises(UsageError, match="too few queries"):
        cross_validate(world.columns[:20], world.labels[:20], np.zeros(20, np.uint64), FAST)


CUTS = np.array([-0.2, 0.5, 1.0])  # between four ordinal labels


def graded(seed: int, queries: int) -> tuple[np.ndarray, np.ndarray]:
    """Return log-probabilities of each label as well as they can be known, and labels, ten pairs a query."""
    random = np.random.default_rng(seed)
    truth = random.normal(size=10 * queries)
    below = norm.cdf(CUTS - truth[:, None])
    shares = np.diff(np.column_stack([np.zeros(len(truth)), below, np.ones(len(truth))]), axis=1)
    labels = np.digitize(truth + random.normal(size=len(truth)), CUTS)
    return np.log(np.maximum(shares, 1e-5)), labels.astype(np.int8)


@lru_cache(maxsize=1)
def best_offsets() -> np.ndarray:
    logs, labels = graded(1, queries=4000)
    targets = dict.fromkeys(("accuracy", "macro_f1", "weighted_f1"), 0.4)
    return tune_once(logs, labels, "macro_f1", targets)


def dominated(seed: int, queries: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return columns, labels and keys: one member answers as well as anybody can, the others know nothing."""
    random = np.random.default_rng(seed)
    logs, labels = graded(seed + 10, queries)
    columns = [softmax(logs + best_offsets()), *(softmax(random.normal(size=logs.shape)) for _ in range(2))]
    groups = np.repeat(random.integers(1, 2**63, queries, dtype=np.uint64), 10)
    return np.stack(columns, axis=1).astype(np.float32), labels, groups


def test_where_nothing_is_to_be_gained_it_is_not_behind_the_best_member():
    behind, alone = [], 0
    for seed in range(6):
        columns, labels, groups = dominated(seed)
        fresh_columns, fresh, _ = dominated(100 + seed, queries=1000)
        fitted = fit_aggregator(columns, labels, groups, ("a", "b", "c"), FAST)
        alone += fitted.alone is not None
        ours = metrics_of(confusion(fresh, fitted.predict(fresh_columns)))
        best = metrics_of(confusion(fresh, fresh_columns[:, 0].argmax(axis=1)))
        behind.append([ours[name] - best[name] for name in best])
        if fitted.alone:
            assert fitted.alone == "a"
            np.testing.assert_allclose(fitted.predict_proba(fresh_columns), fresh_columns[:, 0], atol=1e-4)
    assert np.mean(behind, axis=0).min() > -0.005
    assert alone >= 2
