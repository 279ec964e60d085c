from __future__ import annotations

from dataclasses import replace

import lightgbm
import numpy as np
import pytest

from benchmarks.worlds import make_world
from esci_tournament.registry.errors import UsageError
from esci_tournament.tasks.ensemble.aggregate import Aggregator, AggregatorParameters, flatten
from esci_tournament.tasks.ensemble.fitting import Choice, fit_aggregator
from esci_tournament.tasks.ensemble.trees import FlatTrees, parse_trees


@pytest.fixture(scope="module")
def aggregator() -> Aggregator:
    world = make_world(2, rows=1500, members=3)
    parts = world.columns, world.labels, world.groups, world.members
    return replace(fit_aggregator(*parts, AggregatorParameters(), Choice(rounds=60)), pool=None)  # the trees alone


def test_the_scores_are_lightgbms_bit_for_bit(aggregator: Aggregator) -> None:
    random = np.random.default_rng(0)
    columns = random.dirichlet(np.full(4, 0.3), (1000, 3)).astype(np.float32)
    columns[:50] = np.eye(4, dtype=np.float32)[random.integers(0, 4, (50, 3))]
    columns[50:60] = 0
    expected = aggregator.booster.predict(flatten(columns, aggregator.members), raw_score=True, num_threads=1)
    for part in (slice(0, 1000), slice(0, 40), slice(7, 8)):
        assert np.array_equal(aggregator.raw_scores(columns[part]), np.asarray(expected)[part])
    many = np.tile(columns, (2, 1, 1))
    assert np.array_equal(aggregator.raw_scores(many)[:1000], aggregator.raw_scores(columns))
    assert aggregator.raw_scores(columns[:0]).shape == (0, 4)


def test_values_on_a_threshold_go_left_as_lightgbms_do(aggregator: Aggregator) -> None:
    trees = parse_trees(aggregator.booster.model_to_string())
    splits = [(tree.column[0], tree.threshold[0]) for tree in trees if len(tree.column)][:200]
    features = np.full((len(splits), 12), 0.25)
    for row, (column, threshold) in enumerate(splits):
        features[row, column] = threshold
    expected = aggregator.booster.predict(features, raw_score=True, num_threads=1)
    flat = FlatTrees.of(aggregator.booster.model_to_string())
    assert np.array_equal(flat.raw_scores(features), expected)


def test_trees_without_a_split_add_their_value() -> None:
    random = np.random.default_rng(0)
    features, labels = random.random((200, 4)), np.zeros(200, int)
    labels[:3] = [1, 2, 3]
    settings = {"objective": "multiclass", "num_class": 4, "min_data_in_leaf": 150, "verbosity": -1, "num_threads": 1}
    booster = lightgbm.train(settings, lightgbm.Dataset(features, labels), num_boost_round=3)
    text = booster.model_to_string()
    assert any(len(tree.column) == 0 for tree in parse_trees(text))
    assert np.array_equal(FlatTrees.of(text).raw_scores(features[:40]), booster.predict(features[:40], raw_score=True))


def test_a_score_that_is_not_finite_is_left_to_lightgbm(aggregator: Aggregator) -> None:
    columns = np.full((5, 3, 4), np.nan, dtype=np.float32)
    expected = aggregator.booster.predict(flatten(columns, aggregator.members), raw_score=True)
    assert np.array_equal(aggregator.raw_scores(columns), expected)


def test_categorical_splits_are_refused() -> None:
    with pytest.raises(UsageError, match="categorical"):
        parse_trees("tree\n\nTree=0\nnum_leaves=2\nnum_cat=1\n\n\nend of trees")
