from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esci_tournament.tasks.ensemble.betting import p_value, queries_needed, upper_bound

LEVEL = 0.05


@given(st.data(), st.floats(0.3, 0.9))
def test_a_true_null_hypothesis_is_refused_as_often_as_told_at_most(data: st.DataObject, share: float) -> None:
    """Every outcome is counted: queries that are wrong as a whole, in part, or not, with any chances."""
    sizes = np.array(data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=6)), dtype=float)
    part = np.array([data.draw(st.integers(0, int(size))) for size in sizes], dtype=float)
    weights = np.array([data.draw(st.tuples(*[st.floats(0, 1)] * 3)) for _ in sizes]) + 1e-9
    chances = weights / weights.sum(axis=1, keepdims=True)  # of none, a part, all
    expected = chances[:, 1] @ part + chances[:, 2] @ sizes
    if expected < share * sizes.sum():  # as much more as it takes until the null hypothesis is just true
        more = (share * sizes.sum() - expected) / (sizes.sum() - expected)
        chances = (1 - more) * chances + more * np.array([0.0, 0.0, 1.0])
    places = np.arange(len(sizes))
    outcomes = np.array(list(product(range(3), repeat=len(sizes))))
    probability = chances[places, outcomes].prod(axis=1)
    wrong = np.stack([np.zeros(len(sizes)), part, sizes], axis=1)[places, outcomes]
    found = np.array([p_value(one, sizes, share) for one in wrong])
    for value in np.unique(found):
        assert probability[found <= value].sum() <= value + 1e-9


@given(st.integers(1, 60), st.integers(0, 2**32), st.floats(0, 0.6), st.floats(0.02, 0.8))
def test_laws_of_the_bound(queries: int, seed: int, rate: float, share: float) -> None:
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 40, queries).astype(float)
    wrong = random.binomial(sizes.astype(int), rate * random.random(queries)).astype(float)
    bound = upper_bound(wrong, sizes, share, LEVEL)
    assert wrong.sum() / sizes.sum() <= bound
    assert bound <= share or bound == 1
    assert (bound <= share) == (p_value(wrong, sizes, share) <= LEVEL)
    more = np.minimum(wrong + random.integers(0, 2, queries), sizes)
    assert p_value(more, sizes, share) >= p_value(wrong, sizes, share) * (1 - 1e-9)
    assert upper_bound(more, sizes, share, LEVEL) >= bound
    order = random.permutation(queries)
    assert p_value(wrong[order], sizes[order], share) == pytest.approx(p_value(wrong, sizes, share), rel=1e-9)


@given(st.integers(1, 400), st.integers(1, 50), st.floats(0.001, 0.5))
def test_nothing_wrong_in_equal_queries_is_as_likely_as_that_none_of_them_is_wrong(
    queries: int, size: int, share: float
) -> None:
    exact = (1 - share) ** queries
    found = p_value(np.zeros(queries), np.full(queries, float(size)), share)
    assert exact <= found * (1 + 1e-9)
    assert found <= min(exact / 0.7, 1) * (1 + 1e-9)


@pytest.mark.parametrize("largest", [10, 60])
def test_as_many_queries_as_told_are_enough(largest: int) -> None:
    sizes = np.arange(1.0, largest + 1)
    copies = queries_needed(sizes, 0.005, LEVEL) / largest
    enough, few = np.tile(sizes, int(np.ceil(copies))), np.tile(sizes, int(0.9 * copies))
    assert p_value(np.zeros(len(enough)), enough, 0.005) <= LEVEL
    assert p_value(np.zeros(len(few)), few, 0.005) > LEVEL


def test_one_query_that_may_break_the_promise_alone_leaves_it_unproven() -> None:
    sizes = np.full(3000, 20.0)
    assert p_value(np.zeros(3000), sizes, 0.005) < 1e-5
    sizes[0] = 200  # 0.3 % of the pairs: if all are wrong, 0.2 % are left for the others
    assert p_value(np.zeros(3000), sizes, 0.005) < 0.001
    sizes[0] = 400  # 0.7 %: it is wrong with a chance that cannot be told from one query
    assert p_value(np.zeros(3000), sizes, 0.005) > LEVEL


def test_whole_queries_that_go_wrong_are_seldom_missed() -> None:
    random, missed, rounds = np.random.default_rng(0), 0, 400
    for _ in range(rounds):
        sizes = random.integers(8, 17, 900).astype(float)
        missed += p_value(sizes * (random.random(900) < 0.0051), sizes, 0.005) <= LEVEL
    assert missed / rounds <= LEVEL


def test_single_wrong_pairs_cost_as_many_queries_as_they_leave_room_for() -> None:
    """3 / (0.005 - 0.002) queries could show it at best: a share of 0.003 of them might be wrong as a whole, unseen."""
    random = np.random.default_rng(0)
    shown = [
        np.mean(
            [p_value(random.binomial(20, 0.002, n).astype(float), np.full(n, 20.0), 0.005) <= LEVEL for _ in "x" * 50]
        )
        for n in (800, 1500)
    ]
    assert shown[0] < 0.1
    assert shown[1] > 0.9
