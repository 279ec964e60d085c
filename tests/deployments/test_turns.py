"""Requests begin a few at a time, and all of them begin."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from esci_tournament.deployments.turns import AT_ONCE, Turns


@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.sets(st.integers(0, 60)))
@settings(max_examples=30)
def test_few_begin_in_a_round_in_their_order_and_nobody_is_forgotten(arrivals, hurried) -> None:
    async def run() -> None:
        loop, turns = asyncio.get_running_loop(), Turns()
        everyone: list[asyncio.Future[None]] = []
        for number in arrivals:  # in a round each
            everyone += [turns.wait(loop) for _ in range(number)]
            await asyncio.sleep(0)
        for number in hurried:
            if number < len(everyone) and not everyone[number].done():
                everyone[number].set_result(None)
        waiting = [one for one in everyone if not one.done()]
        while waiting:
            await asyncio.sleep(0)
            begun = [one for one in waiting if one.done()]
            assert begun == waiting[: len(begun)]
            assert 0 < len(begun) <= AT_ONCE
            waiting = waiting[len(begun) :]

    asyncio.run(run())
