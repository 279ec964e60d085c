from dataclasses import replace

import numpy as np
import pytest
import shap
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.worlds import make_world
from esci_tournament.registry.errors import TournamentError
from esci_tournament.tasks.ensemble.aggregate import AggregatorParameters, flatten
from esci_tournament.tasks.ensemble.attribution import attribute, attribute_rows, check_additivity, tabulate
from esci_tournament.tasks.ensemble.fitting import Choice, fit_aggregator


@pytest.fixture(scope="module")
def world():
    return make_world(1, rows=1200, members=3)


def fitted(world, depth=6, seed=0):
    parameters = AggregatorParameters(leaves=20, depth=depth, leaf_rows=5, leaf_hessian=0.5, seed=seed, threads=1)
    parts = world.columns, world.labels, world.groups, world.members
    # The trees alone, which `shap` reads too
    return replace(fit_aggregator(*parts, parameters, Choice(rounds=15)), pool=None)


@pytest.mark.parametrize("depth", [1, 4, 10])
def test_values_are_those_of_tree_explainer_summed_over_a_members_columns(world, depth):
    aggregator = fitted(world, depth)
    values, base = attribute(aggregator, world.columns[:300])
    explainer = shap.TreeExplainer(aggregator.booster)
    peer = np.asarray(explainer.shap_values(flatten(world.columns[:300], world.members)))
    peer = peer.reshape(300, 3, 4, 4).sum(axis=2).transpose(0, 2, 1)
    np.testing.assert_allclose(values, peer, atol=1e-9 * np.abs(peer).max())
    np.testing.assert_allclose(base, explainer.expected_value, atol=1e-9)


@settings(max_examples=8)
@given(seed=st.integers(0, 10_000), depth=st.integers(1, 8))
def test_contributions_add_up_to_the_scores(world, seed, depth):
    aggregator = fitted(world, depth, seed)
    random = np.random.default_rng(seed)
    columns = random.dirichlet(np.ones(4) * 0.5, size=(200, 3)).astype(np.float32)
    values, base = attribute(aggregator, columns)
    np.testing.assert_allclose(base + values.sum(axis=2), aggregator.raw_scores(columns), atol=1e-9)


def test_neither_threads_nor_blocks_change_a_bit(world):
    forest = tabulate(fitted(world))
    features = flatten(world.columns, world.members)
    whole = attribute_rows(forest, features, threads=1)
    assert (attribute_rows(forest, features, threads=2) == whole).all()
    assert (attribute_rows(forest, features[700:], threads=1) == whole[700:]).all()


def test_a_member_that_no_tree_asks_gets_nothing(world):
    columns = world.columns.copy()
    columns[:, 1] = 0.25
    aggregator = fitted(replace(world, columns=columns))
    assert (attribute(aggregator, columns)[0][:, :, 1] == 0).all()


def test_contributions_that_do_not_add_up_stop_the_ranking(world):
    aggregator = fitted(world)
    values, base = attribute(aggregator, world.columns)
    with pytest.raises(TournamentError, match="do not add up"):
        check_additivity(aggregator, world.columns, values * 1.001, base)


def test_trees_without_a_split_give_everything_to_the_base(world):
    aggregator = fitted(replace(world, columns=np.full_like(world.columns, 0.25)))
    values, base = attribute(aggregator, world.columns)
    assert (values == 0).all()
    np.testing.assert_allclose(aggregator.raw_scores(world.columns), np.tile(base, (len(world.labels), 1)))


def test_nothing_to_attribute_is_no_error(world):
    assert attribute(fitted(world), world.columns[:0])[0].shape == (0, 4, 3)
