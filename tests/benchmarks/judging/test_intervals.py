"""The truth that intervals are held against, and the counts that the coverage is made of."""

import numpy as np
import pytest

from benchmarks.judging import intervals
from benchmarks.judging.null_worlds import PRIOR, Family, World
from esci_tournament.tasks.ensemble.counts import confusion


@pytest.mark.parametrize("gain", [0.0, 0.1])
def test_the_expected_answers_are_those_of_a_large_world(gain):
    world = World(np.random.default_rng(0), Family(by_query=0.3, gain=gain), 20_000)
    drawn = confusion(world.labels, world.challenger()) / len(world.labels)
    expected = intervals.expected(gain)
    np.testing.assert_allclose(drawn, expected, atol=0.004)
    np.testing.assert_allclose(expected.sum(axis=1), PRIOR)


def test_each_interval_is_counted_once_and_never_missed_on_both_sides():
    counts = np.array(intervals.shown(0, Family(), 120, 0, 1)).reshape(4, 5)
    asked, printed, low, high, old = counts.T
    assert asked.tolist() == [3, 3, 4, 4]
    assert (low + high <= printed).all()
    assert (printed <= asked).all()
    assert (old <= asked).all()
