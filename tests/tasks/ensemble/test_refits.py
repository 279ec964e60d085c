"""Re-fits on resampled queries: shares that spread as those of other samples do, and a member of noise beside."""

import numpy as np
import pytest

from benchmarks.worlds import make_world
from esci_tournament.tasks.ensemble.aggregate import AggregatorParameters
from esci_tournament.tasks.ensemble.fitting import Choice
from esci_tournament.tasks.ensemble.refits import refit

PARAMETERS = AggregatorParameters(threads=1)
CHOICE = Choice(rounds=3)


@pytest.fixture(scope="module")
def world():
    return make_world(2, rows=2000, members=3, kinds=("plain", "useless", "plain"))


@pytest.fixture(scope="module")
def found(world):
    return refit(*parts(world), PARAMETERS, CHOICE, refits=12)


def parts(world):
    return world.columns, world.labels, world.groups, world.members


def test_shares_add_up_with_and_without_the_noise(found):
    assert found.shares.shape == found.beside_noise.shape == (12, 3)
    np.testing.assert_allclose(found.shares.sum(axis=1), 1)
    np.testing.assert_allclose(found.beside_noise.sum(axis=1) + found.noise, 1)
    assert len(np.unique(found.noise)) == 12


def test_a_useless_member_is_no_more_than_noise_and_the_others_are(found, world):
    above = dict(zip(world.members, found.above_noise(0.05), strict=True))
    assert above == {"plain-0": True, "useless-1": False, "plain-2": True}
    assert found.noise.max() < found.shares[:, [0, 2]].min()


def test_neither_the_order_of_rows_nor_threads_change_a_share(world, found):
    order = np.random.default_rng(5).permutation(len(world.labels))
    shuffled = world.columns[order], world.labels[order], world.groups[order], world.members
    again = refit(*shuffled, AggregatorParameters(threads=2), CHOICE, refits=12)
    np.testing.assert_array_equal(again.shares, found.shares)
    np.testing.assert_array_equal(again.noise, found.noise)


def test_with_too_few_queries_for_folds_the_choice_of_all_pairs_stands(world):
    few = np.isin(world.groups, np.unique(world.groups)[:3])
    found = refit(world.columns[few], world.labels[few], world.groups[few], world.members, PARAMETERS, CHOICE, refits=4)
    np.testing.assert_allclose(found.shares.sum(axis=1), 1)


def test_fewer_queries_than_there_are_are_scaled(world, found):
    half = refit(*parts(world), PARAMETERS, CHOICE, refits=4, maximum_rows=1000)
    assert found.scale == 1
    assert half.scale == pytest.approx(np.sqrt(0.5), abs=0.05)
    np.testing.assert_allclose(half.errors(), half.scale * half.shares.std(axis=0, ddof=1))
