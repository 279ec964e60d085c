import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esci_tournament.tasks.ensemble.budget import Budget, Cost
from esci_tournament.tasks.ensemble.proposals import Proposals
from esci_tournament.tasks.ensemble.search import Search
from tests.tasks.ensemble.pairs import PairsGame


def search_of(seed, models, budget, keep=frozenset()):
    game = PairsGame(seed, models)
    return Search(game, game.costs, budget, keep, frozenset())


@settings(max_examples=20)
@given(
    st.integers(0, 1000), st.sampled_from([5, 16]), st.sampled_from(["series", "parallel"]), st.floats(4, 20),
    st.floats(4, 20), st.booleans(),
)  # fmt: skip
def test_every_candidate_is_new_and_within_the_budget(seed, models, execution, memory, latency, keeps):
    search = search_of(seed, models, Budget(memory, latency, execution), frozenset(["m01"] if keeps else []))
    proposals = Proposals(search)
    known = proposals.rows([search.keep | {name} for name in proposals.free])
    good = known[proposals.fit(known)]
    pool = proposals.pool(known, good, lambda some: some @ np.linspace(1, 2, len(proposals.free)))
    sets = [proposals.members(row) for row in pool]
    assert len(set(sets)) == len(sets) <= 1500
    assert all(search.fits(members) and search.allowed(members) for members in sets)
    assert not {*sets} & {proposals.members(row) for row in known}
    if models == 5:
        assert {*sets} | {proposals.members(row) for row in good} >= {
            s for s in search.all_sets() if search.allowed(s) and search.fits(s) and s != search.keep
        }


@pytest.mark.parametrize("execution", ["series", "parallel"])
def test_fit_agrees_with_the_budget(execution):
    search = search_of(1, 9, Budget(8, 7, execution), frozenset(["m02"]))
    proposals = Proposals(search)
    sets = search.all_sets()
    assert proposals.fit(proposals.rows(sets)).tolist() == [search.fits(members) for members in sets]


def test_a_set_that_fills_the_budget_to_the_last_bit_is_a_candidate():
    game = PairsGame(0, 14)
    costs = {name: Cost(0.1, 0) for name in game.members}
    search = Search(game, costs, Budget(memory_mib=sum([0.1] * 3)), frozenset(), frozenset())
    proposals = Proposals(search)
    row = np.zeros((1, 14), dtype=bool)
    row[0, [3, 7, 11]] = True
    assert proposals.fit(row)[0]


def test_the_most_promising_of_many_sets_is_found():
    """The budget carries 10 of 24 models, of which each is worth something else: nothing else fits better."""
    game = PairsGame(0, 24)
    search = Search(game, {name: Cost(1, 1) for name in game.members}, Budget(10), frozenset(), frozenset())
    proposals = Proposals(search)
    worth = np.random.default_rng(5).permutation(24) - 3.0
    single = np.eye(24, dtype=bool)
    pool = proposals.pool(single, single, lambda some: some @ worth)
    assert pool[0] @ worth == np.sort(worth)[-10:].sum()
