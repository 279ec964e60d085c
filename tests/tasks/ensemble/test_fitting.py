from dataclasses import replace

import numpy as np
import pytest

from benchmarks.worlds import make_world
from esci_tournament.registry.errors import UsageError
from esci_tournament.tasks.ensemble.aggregate import AggregatorParameters
from esci_tournament.tasks.ensemble.counts import confusion, metrics_of
from esci_tournament.tasks.ensemble.fitting import cross_validate, fit_aggregator, fold_of, out_of_fold

FAST = AggregatorParameters(maximum_rounds=40, threads=1)


@pytest.fixture(scope="module")
def world():
    return make_world(3, rows=1500, members=3, kinds=("plain", "plain", "weak"))


@pytest.fixture(scope="module")
def aggregator(world):
    return fit_aggregator(world.columns, world.labels, world.groups, world.members, FAST)


def test_the_ensemble_beats_every_member_out_of_fold(world):
    ensemble = metrics_of(
        confusion(world.labels, out_of_fold(world.columns, world.labels, world.groups).argmax(axis=1))
    )
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


def test_out_of_fold_rows_are_not_predicted_by_a_model_that_saw_their_query(world):
    # Labels of one fold's queries are scrambled: only models that learn from that fold may change
    folds = fold_of(world.groups, FAST.folds)
    labels = world.labels.copy()
    labels[folds == 0] = np.random.default_rng(1).permutation(labels[folds == 0])
    parameters = replace(FAST, maximum_rounds=5, patience=5)
    before = cross_validate(world.columns, world.labels, world.groups, parameters)
    after = cross_validate(world.columns, labels, world.groups, parameters)
    assert before.rounds == after.rounds == 5
    np.testing.assert_allclose(before.probabilities[folds == 0], after.probabilities[folds == 0], atol=1e-6)


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
