"""A question is answered once, by whoever answers its last rows; a member is known by how long its batches took."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esci_tournament.deployments.scorer.catalogue import Text
from esci_tournament.deployments.scorer.compute.breaker import Breaker
from esci_tournament.deployments.scorer.compute.pairs import NotAnswered, Pairs
from esci_tournament.deployments.scorer.compute.questions import Member, Question


def question(size: int, *todo: tuple[int, int]) -> Question:
    """Return a question about some products; it is to be asked inside an event loop."""
    pairs = Pairs("lamp", "us", [Text(f"P{row}", "lamp", "", "", "", "") for row in range(size)])
    return Question("a", pairs, 0, asyncio.get_running_loop().create_future(), deque(todo or [(0, size)]))


def member(*questions: Question) -> Member:
    return Member("a", Breaker(2, 1.0), deque(questions))


@given(st.integers(1, 30), st.sets(st.integers(1, 29)), st.randoms(use_true_random=False))
def test_slices_in_any_order_make_the_whole_answer_and_only_the_last_one_gives_it(size, cuts, random) -> None:
    expected = np.arange(size * 4, dtype=np.float32).reshape(size, 4)
    slices = list(pairwise([0, *sorted(cut for cut in cuts if cut < size), size]))
    random.shuffle(slices)

    async def go() -> None:
        asked = question(size)
        for start, stop in slices:
            assert not asked.done
            asked.fill(start, stop, expected[start:stop])
        np.testing.assert_array_equal(asked.scores, expected)

    asyncio.run(go())


def test_the_first_word_stands() -> None:
    async def go() -> None:
        failed, answered = question(1), question(1)
        failed.fail(NotAnswered("it hangs"))
        failed.fill(0, 1, np.ones((1, 4), np.float32))
        assert str(failed.answer.result()) == "it hangs"
        assert failed.scores is None
        answered.fill(0, 1, np.ones((1, 4), np.float32))
        answered.fail(NotAnswered("too late"))
        assert answered.scores is not None

    asyncio.run(go())


def test_an_answer_that_comes_after_the_loop_is_closed_is_nobodys() -> None:
    async def ask() -> Question:
        return question(1)

    late = asyncio.run(ask())
    late.fill(0, 1, np.ones((1, 4), np.float32))
    assert not late.done


def test_what_nobody_needs_does_not_wait() -> None:
    async def go() -> None:
        needed, dropped = question(10, (0, 4), (8, 10)), question(5)
        asked = member(needed, dropped)
        assert asked.waiting == 11
        dropped.drop()
        assert asked.waiting == 6
        asked.learn(2.0, 4)
        assert asked.expected_seconds == pytest.approx(3.0)

    asyncio.run(go())


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 100)), min_size=1))
def test_seconds_a_pair_stay_between_the_quickest_and_the_slowest_batch(batches) -> None:
    known = member()
    assert known.seconds_for(7) == 0
    for seconds, pairs in batches:
        known.learn(seconds, pairs)
    each = [seconds / max(pairs, 1) for seconds, pairs in batches]
    assert min(each) - 1e-9 <= known.seconds_for(1) <= max(each) + 1e-9
