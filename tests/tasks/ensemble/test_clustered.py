from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from esci_tournament.tasks.ensemble.clustered import design_effect, upper_bound


def test_single_pairs_have_the_bound_of_clopper_and_pearson() -> None:
    wrong = np.zeros(3000)
    wrong[:4] = 1
    assert upper_bound(wrong, np.ones(3000), 0.05) == pytest.approx(beta.isf(0.05, 5, 2996), rel=2e-3)
    assert upper_bound(np.zeros(598), np.ones(598), 0.05) == pytest.approx(0.005, rel=2e-3)


def test_pairs_that_are_all_alike_count_as_one_a_query() -> None:
    alone, sizes = np.zeros(400), np.ones(400)
    alone[:20] = 1
    assert design_effect(10 * alone, 10 * sizes) == pytest.approx(10, rel=0.01)
    assert upper_bound(10 * alone, 10 * sizes, 0.05) == pytest.approx(upper_bound(alone, sizes, 0.05), rel=0.02)


def test_too_few_queries_bound_nothing() -> None:
    assert upper_bound(np.zeros(1), np.array([1000.0]), 0.05) == 1


@given(st.integers(2, 60), st.integers(0, 2**32), st.floats(0, 0.5))
def test_the_bound_is_above_the_share_and_above_that_of_independent_pairs(queries: int, seed: int, rate: float) -> None:
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 30, queries).astype(float)
    wrong = random.binomial(sizes.astype(int), rate).astype(float)
    bound, pairs, hits = upper_bound(wrong, sizes, 0.05), sizes.sum(), wrong.sum()
    independent = 1.0 if hits == pairs else beta.isf(0.05, hits + 1, pairs - hits)
    assert hits / pairs <= bound
    assert bound >= independent - 1e-9
    assert upper_bound(wrong, sizes, 0.05, at_least=3.0) >= bound - 1e-12


def test_it_covers_rare_events_that_come_in_bursts() -> None:
    random, covered, rounds = np.random.default_rng(0), 0, 400
    for _ in range(rounds):
        sizes = random.integers(5, 40, 400).astype(float)
        chance = random.beta(0.02, 2.0, 400)  # most queries never, a few often: 1 % in all
        bound = upper_bound(random.binomial(sizes.astype(int), chance).astype(float), sizes, 0.05)
        covered += bound >= 0.02 / 2.02
    assert covered / rounds >= 0.91
