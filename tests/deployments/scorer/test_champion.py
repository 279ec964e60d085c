"""A champion at work: which one it is, who is asked after whom, and when it ends."""

from __future__ import annotations

import asyncio
import threading
import time

from esci_tournament.deployments.scorer.catalogue import Text
from esci_tournament.deployments.scorer.compute.pairs import Pairs
from tests.deployments.scorer.conftest import exit_rule


def test_members_between_which_nobody_may_leave_are_asked_together(stand):
    assert stand.make(1, exit_rule(None, 0.5)).exit_stages == [(2, ("alpha/1", "beta/1")), (3, ("gamma/1",))]
    assert stand.make(1, exit_rule(0.5, None)).exit_stages == [(1, ("alpha/1",)), (3, ("beta/1", "gamma/1"))]


def test_requests_under_way_finish_on_the_champion_they_began_with(stand):
    old, new = stand.champion, stand.make(2)
    pairs = Pairs("lamp", "us", [Text("A", "lamp", "", "", "", "")])

    async def go() -> None:
        await stand.scorer.engine.score(old, pairs, time.monotonic() + 10)
        stand.candidate("alpha/1").free.clear()
        under_way = asyncio.create_task(stand.scorer.engine.score(old, pairs, time.monotonic() + 10))
        await asyncio.sleep(0.05)
        free = stand.candidate("alpha/1").free
        closed = stand.scorer.active.take(new)
        assert isinstance(closed, threading.Event)
        assert not closed.is_set()
        free.set()
        assert (await under_way).missing == ()
        assert closed.is_set()

    stand.run(go())
