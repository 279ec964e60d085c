"""Storms and lulls of the crash test: all kills are done in time, and work can go on in between."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from benchmarks.rhythm import LULL_GAP_S, LULL_S, STORM, Rhythm


def played(kills: int, seconds: float, seed: int, hit: float = 0.9) -> tuple[list[float], list[float]]:
    """Return the moments of the kills and those at which lulls begin; `hit` is the share of kills that find someone."""
    chance = random.Random(seed)
    rhythm, now = Rhythm(kills, 0.0, seconds, chance), 0.0
    moments, lulls = list[float](), [0.0]
    while rhythm.done < kills:
        if rhythm.is_time(now, tournaments=0):
            found = chance.random() < hit
            moments += [now] * found
            lulls += [now] * rhythm.killed(now, found)
        now += 0.1
    return moments, lulls


@pytest.mark.parametrize(("kills", "seconds"), [(125, 250.0), (125, 180.0), (10, 60.0), (3, 5.0)])
def test_all_kills_are_done_in_time(kills: int, seconds: float) -> None:
    for seed in range(20):
        moments, _ = played(kills, seconds, seed)
        assert len(moments) == kills
        assert moments[-1] < 1.15 * seconds + 5


def test_half_of_the_time_is_lull_and_its_kills_are_apart() -> None:
    for seed in range(20):
        moments, lulls = played(125, 250.0, seed)
        assert len(lulls) >= 3
        gaps = [after - before for before, after in pairwise(moments)]
        assert sum(gap for gap in gaps if gap > LULL_GAP_S[0] / 2) > 0.4 * 250
        assert max(gaps) < LULL_S


def test_a_tournament_that_ends_ends_the_lull() -> None:
    rhythm = Rhythm(100, 0.0, 1000.0, random.Random(0))
    assert not rhythm.is_time(1.0, tournaments=0)
    assert rhythm.is_time(1.1, tournaments=1)
    begins = [rhythm.killed(1.1, one=True) for _ in range(STORM)]
    assert begins == [False] * (STORM - 1) + [True]
    assert not rhythm.is_time(1.2, tournaments=1)
