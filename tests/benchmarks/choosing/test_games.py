import numpy as np
import pytest

from benchmarks.choosing.games import LinearGame, every_set
from benchmarks.choosing.reference import best_set
from benchmarks.choosing.structures import STRUCTURES, make_structured, split
from benchmarks.selection import prices
from benchmarks.worlds import make_world


def test_a_set_has_the_same_value_alone_and_among_others():
    game = LinearGame(make_world(3, rows=1000, members=5))
    together = game.values_of(every_set(5))
    alone = [game.value(np.array(game.members)[row].tolist()) for row in every_set(5)]
    np.testing.assert_allclose(together, alone)
    assert sum(game.utility(game.members).values()) == pytest.approx(1)


def test_informative_members_are_ahead_of_useless_ones_on_other_pairs_too():
    world, others = split(make_world(4, rows=4000, members=3, kinds=("plain", "plain", "useless")), 2000)
    assert not {*world.groups.tolist()} & {*others.groups.tolist()}
    game = LinearGame(world)
    assert game.value(world.members[:2]) > game.value(world.members[2:]) + 0.1
    assert game.elsewhere(world.members[:2], others) > game.elsewhere(world.members[2:], others) + 0.1


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_reference_is_the_best_of_all_sets_within_the_budget(structure):
    world = make_structured(structure, 1, rows=600, members=6)
    costs, budget = prices(world, 1)
    game = LinearGame(world)
    members, value = best_set(game, world, budget, [], 0)
    assert budget.fits(members, costs)
    within = [row for row in every_set(6) if budget.fits(np.array(world.members)[row].tolist(), costs)]
    assert value == pytest.approx(max(game.values_of(np.array(within))))


def test_the_search_among_many_models_is_no_worse_than_what_it_starts_from():
    world = make_world(2, rows=600, members=17)
    costs, budget = prices(world, 2)
    start = next([name] for name in world.members if budget.fits([name], costs))
    members, value = best_set(LinearGame(world), world, budget, [start], 0)
    assert budget.fits(members, costs)
    assert value >= LinearGame(world).value(start)
