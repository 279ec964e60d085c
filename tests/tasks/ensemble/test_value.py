import numpy as np
import pytest

from benchmarks.worlds import make_world
from esci_tournament.registry.errors import UsageError
from esci_tournament.tasks.ensemble.aggregate import AggregatorParameters
from esci_tournament.tasks.ensemble.counts import metric_of
from esci_tournament.tasks.ensemble.fitting import cross_validate
from esci_tournament.tasks.ensemble.rule import estimated
from esci_tournament.tasks.ensemble.value import Game

FAST = AggregatorParameters(learning_rate=0.3, maximum_rounds=15, patience=3, folds=2, threads=1)


@pytest.fixture(scope="module")
def world():
    return make_world(4, rows=1500, members=3, kinds=("plain", "plain", "useless"))


@pytest.fixture
def game(world):
    return Game(world.columns, world.labels, world.groups, world.members, FAST)


def test_each_set_is_fitted_once(game, world):
    heard = []
    game._heard = lambda members, value: heard.append(members)
    first = game.value(world.members)
    assert game.value(reversed(world.members)) == first
    assert game.refits == 1
    assert heard == [frozenset(world.members)]


def test_known_values_are_not_fitted_again(world):
    known = {frozenset(world.members): 0.5}
    game = Game(world.columns, world.labels, world.groups, world.members, FAST, known=known)
    assert game.value(world.members) == 0.5
    assert game.refits == 0


def test_shapley_values_add_up_to_what_all_reach_over_nobody(game, world):
    values = game.shapley()
    assert sum(values.values()) == pytest.approx(game.value(world.members) - game.value(()))
    assert game.refits == 7
    assert min(values, key=values.get) == "useless-2"


def test_drop_one_is_the_loss_without_a_member(game, world):
    lost = game.drop_one()
    without = [name for name in world.members if name != "plain-0"]
    assert lost["plain-0"] == game.value(world.members) - game.value(without)
    assert lost["plain-0"] > lost["useless-2"]


def test_the_error_of_a_loss_is_that_of_a_jackknife_over_queries(game, world):
    loss, error = game.drop_one()["plain-0"], game.drop_one_errors()["plain-0"]
    assert game.contrast([(1.0, world.members), (-1.0, ["plain-1", "useless-2"])]) == (pytest.approx(loss), error)
    keys = np.unique(world.groups)
    sides = [decisions(world, members) for members in (world.members, world.members[1:])]

    def without(key):
        rows = world.groups != key
        whole, less = (metric_of("macro_f1", estimated(world.labels[rows], one[:, rows])) for one in sides)
        return whole - less

    left = np.array([without(key) for key in keys])
    jackknife = np.sqrt((len(keys) - 1) / len(keys) * ((left - left.mean()) ** 2).sum())
    assert error == pytest.approx(jackknife, rel=0.05)


def decisions(world, members):
    columns = np.ascontiguousarray(world.columns[:, [world.members.index(name) for name in members]])
    return cross_validate(columns, world.labels, world.groups, FAST).decisions


def test_the_error_of_the_empty_set_and_of_a_set_against_itself(game, world):
    assert game.contrast([(1.0, ())])[1] > 0
    assert game.contrast([(1.0, world.members), (-1.0, reversed(world.members))]) == (0.0, 0.0)
    assert 0 < game.error() < 0.1


def test_utility_is_that_of_the_ensemble_of_the_subset(game):
    utility = game.utility(["plain-1", "useless-2"])
    assert set(utility) == {"plain-1", "useless-2"}
    assert sum(utility.values()) == pytest.approx(1)
    assert game.aggregator(["useless-2", "plain-1"]).members == ("plain-1", "useless-2")


def test_many_rows_are_cut_down_to_whole_queries(world):
    game = Game(world.columns, world.labels, world.groups, world.members, FAST, maximum_rows=500)
    assert 400 < len(game.labels) <= 500
    for key in np.unique(game.groups):
        assert (game.groups == key).sum() == (world.groups == key).sum()


def test_the_final_aggregator_learns_from_all_rows(world):
    cut = Game(world.columns, world.labels, world.groups, world.members, FAST, maximum_rows=500)
    whole = Game(world.columns, world.labels, world.groups, world.members, FAST)
    final = cut.final_aggregator(world.members[:2]).booster.model_to_string()
    assert final == whole.final_aggregator(world.members[:2]).booster.model_to_string()
    assert final != cut.aggregator(world.members[:2]).booster.model_to_string()


def test_unknown_and_repeated_names_are_refused(game, world):
    with pytest.raises(UsageError, match="'nobody' is not among"):
        game.value(["nobody"])
    with pytest.raises(UsageError, match="repeat"):
        Game(world.columns, world.labels, world.groups, ("a", "a", "b"), FAST)


def test_too_many_members_for_exact_shapley_values():
    world = make_world(0, rows=300, members=11)
    game = Game(world.columns, world.labels, world.groups, world.members, FAST)
    with pytest.raises(UsageError, match="2048 re-fits"):
        game.shapley()
