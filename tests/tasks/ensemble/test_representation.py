"""Judged queries stand for all test queries, by locale and by how often they are asked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esci_tournament.tasks.ensemble.representation import FEWEST, LARGEST, representative


@given(st.integers(0, 10_000), st.floats(0.1, 1.0), st.integers(30, 300))
def test_weights_are_positive_with_mean_one_and_bounded(seed, kept, queries):
    random = np.random.default_rng(seed)
    locale, frequency = random.choice(["us", "jp"], queries), random.geometric(0.02, queries) - 1
    judged = random.random(queries) < kept
    judged[0] = True
    weights = representative(locale, frequency, judged)
    assert len(weights) == judged.sum()
    assert (weights > 0).all()
    assert weights.mean() == pytest.approx(1)
    assert weights.max() <= LARGEST * weights.min() * LARGEST


def test_where_all_can_be_judged_all_count_alike():
    weights = representative(np.repeat(["us", "jp"], 50), np.arange(100), np.ones(100, dtype=bool))
    assert weights.tolist() == [1.0] * 100


def test_an_estimate_is_that_of_all_queries_where_groups_are_alike():
    """Frequent queries are right in 0.9 and rare ones in 0.5; four in five of the frequent ones cannot be judged."""
    random = np.random.default_rng(3)
    frequency = np.repeat([0, 50], 20_000)
    right = random.random(40_000) < np.where(frequency > 0, 0.9, 0.5)
    judged = random.random(40_000) < np.where(frequency > 0, 0.3, 1.0)
    weights = representative(np.full(40_000, "us"), frequency, judged)
    assert right[judged].mean() < 0.62
    assert np.average(right[judged], weights=weights) == pytest.approx(right.mean(), abs=0.01)


def test_a_small_group_is_joined_with_its_neighbour():
    frequency = np.repeat([0, 5, 50], [40, 40, 40])
    judged = np.ones(120, dtype=bool)
    judged[80 : 120 - FEWEST + 1] = False  # too few of the most frequent are left
    weights = representative(np.full(120, "us"), frequency, judged)
    assert weights[40] == weights[-1] > weights[0]
