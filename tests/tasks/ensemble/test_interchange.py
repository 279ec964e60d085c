"""Which models can stand for each other: copies can, members that are both needed or both useless cannot."""

import numpy as np
import pytest

from benchmarks.worlds import make_world
from esci_tournament.tasks.ensemble.aggregate import AggregatorParameters
from esci_tournament.tasks.ensemble.interchange import interchangeable
from esci_tournament.tasks.ensemble.similarity import compare_members
from esci_tournament.tasks.ensemble.value import Game

FAST = AggregatorParameters(learning_rate=0.3, maximum_rounds=15, patience=3, folds=2, threads=1)


@pytest.fixture(scope="module")
def game():
    world = make_world(8, rows=3000, members=5, kinds=("plain", "plain", "useless", "useless", "duplicate"))
    names = ("one", "two", "noise-1", "noise-2", "copy")
    columns = world.columns.copy()
    slight = np.random.default_rng(0).normal(0, 0.05, columns[:, 0].shape)
    columns[:, 4] = columns[:, 0] * np.exp(slight)
    columns[:, 4] /= columns[:, 4].sum(axis=1, keepdims=True)
    return Game(columns, world.labels, world.groups, names, FAST)


def found(game, members):
    return interchangeable(game, members, compare_members(game.columns, game.labels, game.members))


def test_two_copies_are_interchangeable_and_nobody_else_is(game):
    pair = found(game, game.members)
    assert [(one.first, one.second, one.kept) for one in pair] == [("one", "copy", True)]
    assert pair[0].together > 2 * pair[0].together_error
    assert abs(pair[0].difference) < 2 * pair[0].error
    assert pair[0].sentence.startswith("one and copy are interchangeable: the metric loses ")


def test_a_copy_that_is_out_can_stand_for_the_member(game):
    pair = found(game, ("one", "two"))
    assert [(one.first, one.second, one.kept) for one in pair] == [("one", "copy", False)]
    assert pair[0].sentence.startswith("copy, which is out, can stand for one: with it instead the metric changes by ")


def test_models_that_err_differently_are_not_looked_at(game):
    before = game.refits
    likeness = [one for one in compare_members(game.columns, game.labels, game.members) if one.correlation < 0.3]
    assert interchangeable(game, ("noise-1", "noise-2"), likeness) == ()
    assert game.refits == before
