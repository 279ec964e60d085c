import numpy as np
import pytest

from benchmarks.choosing.previous import neighbours
from esci_tournament.tasks.ensemble.budget import Budget, Cost
from esci_tournament.tasks.ensemble.exchange import exchange
from esci_tournament.tasks.ensemble.search import Search
from esci_tournament.tasks.ensemble.select import select
from esci_tournament.tasks.ensemble.selection_rules import RULES
from tests.tasks.ensemble.pairs import PairsGame


@pytest.mark.parametrize(("models", "seed"), [(14, 0), (14, 5), (20, 0)])
def test_pairs_that_only_pay_together_are_found_among_many_models(models, seed):
    game = PairsGame(seed, models)
    budget = Budget(0.9 * models, 0.9 * models)
    chosen = select(game, game.costs, budget)
    assert game.bound(budget) - chosen.value <= 0.001
    assert chosen.refits <= 12 * models


def test_a_search_among_neighbours_of_the_best_sets_does_not_find_them(monkeypatch):
    monkeypatch.setitem(RULES, "neighbours", neighbours)
    game, budget = PairsGame(0, 14), Budget(12.6, 12.6)
    assert game.bound(budget) - select(game, game.costs, budget, "neighbours").value > 0.03


def test_a_repeated_selection_among_many_models_decides_the_same():
    fresh, resumed = PairsGame(3, 14), PairsGame(3, 14)
    budget = Budget(12, 12)
    first = select(fresh, fresh.costs, budget)
    resumed.values = dict(list(fresh.values.items())[::-2])  # what an interrupted run knew, in another order
    second = select(resumed, dict(reversed(list(fresh.costs.items()))), budget)
    assert (first.kept, first.path, first.refits) == (second.kept, second.path, second.refits)
    assert resumed.refits < fresh.refits


@pytest.mark.parametrize("execution", ["series", "parallel"])
def test_lists_of_names_and_the_budget_are_obeyed_among_many_models(execution):
    game = PairsGame(4, 16)
    budget = Budget(14, 14 if execution == "series" else 2.8, execution)
    chosen = select(game, game.costs, budget, must_keep=["m03"], must_drop=["m05"])
    assert "m03" in chosen.kept
    assert "m05" not in chosen.kept
    assert budget.fits(chosen.kept, game.costs)


def test_no_more_sets_are_fitted_than_are_allowed_or_than_there_are():
    game = PairsGame(2, 6)
    search = Search(game, game.costs, Budget(), frozenset(), frozenset())
    start = frozenset(["m00"])
    search.value(start)
    best = exchange(search, start, 5)
    assert search.spent() == 6
    exchange(search, best, 1000)
    assert search.spent() == 2**6 - 1
    assert np.isclose(search.value(exchange(search, best, 0)), max(game.values.values()), atol=0.1)


@pytest.mark.parametrize("limit", [1.0, 2.0, None])
def test_no_set_or_every_set_of_many_models_may_be_within_the_budget(limit):
    game = PairsGame(1, 14)
    costs = {name: Cost(1, 1) for name in game.members}
    chosen = select(game, costs, Budget(limit))
    assert len(chosen.kept) == (limit or 14)
