from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.worlds import make_world
from esci_tournament.registry.errors import BudgetError, UsageError
from esci_tournament.tasks.ensemble.aggregate import AggregatorParameters
from esci_tournament.tasks.ensemble.budget import Budget, Cost
from esci_tournament.tasks.ensemble.select import select
from esci_tournament.tasks.ensemble.selection_rules import RULES
from esci_tournament.tasks.ensemble.value import Game


class Table:
    """A game with made-up values: redundant strengths with a little noise, so that greedy choices can be wrong."""

    def __init__(self, seed: int, size: int = 6) -> None:
        random = np.random.default_rng(seed)
        self.members = tuple(f"m{place}" for place in range(size))
        topics = random.random((size, 4)) * (random.random((size, 4)) < 0.5)
        self._table = {}
        for count in range(size + 1):
            for chosen in combinations(range(size), count):
                reached = 1 - np.prod(1 - topics[list(chosen)], axis=0)
                value = float(reached.mean() + random.normal() * 0.005)
                self._table[frozenset(self.members[place] for place in chosen)] = value
        self._credit = dict(zip(self.members, topics.sum(axis=1) + 0.01, strict=True))
        self.values: dict[frozenset[str], float] = {}
        self.refits = 0
        self.costs = {name: Cost(*random.uniform(1, 10, size=2)) for name in self.members}

    def value(self, subset):
        key = frozenset(subset)
        if key not in self.values:
            self.refits += bool(key)
            self.values[key] = self._table[key]
        return self.values[key]

    def utility(self, subset):
        self.value(subset)
        total = sum(self._credit[name] for name in subset)
        return {name: self._credit[name] / total for name in subset}


limits = st.one_of(st.none(), st.floats(10, 60))
seeds = st.integers(0, 100_000)


@settings(max_examples=60)
@given(seeds, limits, limits, st.sampled_from(["series", "parallel"]), st.sampled_from(list(RULES)))
def test_a_selection_is_never_over_budget(seed, memory, latency, execution, rule):
    game = Table(seed)
    budget = Budget(memory, latency, execution)
    chosen = select(game, game.costs, budget, rule)
    assert chosen.kept
    assert budget.fits(chosen.kept, game.costs)
    assert {*chosen.kept, *(gone.member for gone in chosen.evicted)} == set(game.members)
    assert chosen.regret >= 0


@settings(max_examples=30)
@given(seeds, st.floats(10, 40), st.floats(10, 40), st.floats(0, 20), st.floats(0, 20))
def test_a_larger_budget_is_never_worse_in_exhaustive(seed, memory, latency, more_memory, more_latency):
    game = Table(seed)
    small = select(game, game.costs, Budget(memory, latency), "exhaustive")
    large = select(game, game.costs, Budget(memory + more_memory, latency + more_latency), "exhaustive")
    assert large.value >= small.value


@settings(max_examples=25)
@given(seeds, st.sampled_from(list(RULES)))
def test_lists_of_names_are_obeyed_and_reasons_given(seed, rule):
    game = Table(seed)
    chosen = select(game, game.costs, Budget(memory_mib=30), rule, must_keep=["m1"], must_drop=["m2"])
    assert "m1" in chosen.kept
    assert "m2" not in chosen.kept
    reasons = {gone.member: gone.reason for gone in chosen.evicted}
    assert reasons["m2"] == "named in must_drop"
    assert all(reasons.values())


def test_exchange_finds_what_eviction_and_top_k_miss():
    lost = {rule: [] for rule in RULES}
    refits = dict.fromkeys(RULES, 0)
    for seed in range(16):
        best = select(game := Table(seed), game.costs, Budget(20, 20), "exhaustive").value
        for rule in RULES:
            chosen = select(game := Table(seed), game.costs, Budget(20, 20), rule)
            lost[rule].append(best - chosen.value)
            refits[rule] += chosen.refits
    assert np.mean(lost["shap"]) < np.mean(lost["greedy"]) < np.mean(lost["top_k"])
    assert refits["shap"] < refits["exhaustive"]


def test_the_regret_is_against_the_best_set_known():
    game = Table(3)
    select(game, game.costs, Budget(25, 25), "exhaustive")
    chosen = select(game, game.costs, Budget(25, 25), "top_k")
    assert chosen.best_value == max(
        value for s, value in game.values.items() if s and Budget(25, 25).fits(s, game.costs)
    )
    assert chosen.regret == chosen.best_value - chosen.value


def test_values_known_from_an_interrupted_run_do_not_change_the_choice():
    fresh, resumed = Table(7), Table(7)
    for members in list(resumed._table)[1::2]:
        resumed.values[members] = resumed._table[members]
    first = select(fresh, fresh.costs, Budget(25, 25))
    second = select(resumed, resumed.costs, Budget(25, 25))
    assert (first.kept, first.path, first.refits) == (second.kept, second.path, second.refits)
    assert resumed.refits < fresh.refits


def test_curves_rise_with_the_limit():
    game = Table(5)
    chosen = select(game, game.costs, Budget(25, 25), "exhaustive")
    for curve in (chosen.memory_curve, chosen.latency_curve):
        assert [point.limit for point in curve] == sorted(point.limit for point in curve)
        assert [point.value for point in curve] == sorted(point.value for point in curve)


def test_a_model_too_large_for_the_budget_is_said_to_be():
    game = Table(1)
    costs = {**game.costs, "m0": Cost(1000, 1)}
    chosen = select(game, costs, Budget(memory_mib=50))
    assert "does not fit the budget alone" in next(gone.reason for gone in chosen.evicted if gone.member == "m0")


def test_a_budget_nobody_fits_names_the_smallest():
    game = Table(1)
    with pytest.raises(BudgetError, match=r"even m\d alone takes"):
        select(game, game.costs, Budget(memory_mib=0.5))
    with pytest.raises(BudgetError, match="must be kept"):
        select(game, game.costs, Budget(memory_mib=5), must_keep=game.members)


def test_contradictions_are_refused():
    game = Table(1)
    with pytest.raises(UsageError, match="both"):
        select(game, game.costs, must_keep=["m1"], must_drop=["m1"])
    with pytest.raises(UsageError, match="'x'"):
        select(game, game.costs, must_keep=["x"])
    with pytest.raises(UsageError, match="rule 'best'"):
        select(game, game.costs, rule="best")


def test_too_many_models_for_exhaustive_and_enough_for_shap():
    class Wide(Table):
        def value(self, subset):
            key = frozenset(subset)
            if key not in self.values:
                self.refits += bool(key)
                self.values[key] = 1 - 0.9 ** len(key)
            return self.values[key]

    game = Wide(0, 2)
    game.members = tuple(f"m{place}" for place in range(14))
    game.costs = {name: Cost(1, 1) for name in game.members}
    game._credit = dict.fromkeys(game.members, 1.0)
    with pytest.raises(UsageError, match="up to 12"):
        select(game, game.costs, rule="exhaustive")
    chosen = select(game, game.costs, Budget(memory_mib=5))
    assert len(chosen.kept) == 5
    assert chosen.refits <= 14 * 12


@pytest.mark.parametrize("rule", list(RULES))
def test_where_no_ensemble_is_ahead_of_a_model_it_is_kept_alone(rule):
    game = Table(4)
    for members in game._table:
        game._table[members] = 0.5 + 0.1 * (members == frozenset(["m3"]))
    chosen = select(game, game.costs, rule=rule)
    assert chosen.kept == ("m3",)
    assert chosen.alone == game.members
    if rule in ("shap", "top_k"):  # the others find it themselves
        assert chosen.path[-1].action == "keep m3 alone: no ensemble that was tried is ahead of it"
    both = select(game, game.costs, rule=rule, must_keep=["m1", "m2"])
    assert both.alone == ()
    assert {"m1", "m2"} <= {*both.kept}


def test_a_real_game_lets_the_useless_member_go():
    world = make_world(9, rows=6000, members=4, kinds=("plain", "plain", "useless", "duplicate"))
    costs = {name: Cost(100, 10) for name in world.members}
    fast = AggregatorParameters(learning_rate=0.3, maximum_rounds=15, patience=3, folds=2, threads=1)
    game = Game(world.columns, world.labels, world.groups, world.members, fast)
    chosen = select(game, costs, Budget(memory_mib=200))
    assert len(chosen.kept) <= 2
    assert "useless-2" not in chosen.kept
    assert chosen.path[0].action == "start with all models that fit alone"
