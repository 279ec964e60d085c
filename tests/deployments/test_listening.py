"""A burst of connections while the server is occupied: none is dropped, and they are accepted together."""

from __future__ import annotations

import asyncio
import select
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import uvicorn
import uvloop

from esci_tournament.deployments.listening import AT_ONCE, PromptServer

BURST = 320


async def app(scope, receive, send) -> None:
    raise AssertionError("no request is sent")


async def burst() -> tuple[int, int]:
    """Return how many of a burst were connected while the loop stood still, and the rounds until all were accepted."""
    config = uvicorn.Config(app, port=0, backlog=16, lifespan="off", log_level="critical")
    config.load()
    server = PromptServer(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    address = server.servers[0].sockets[0].getsockname()
    with ExitStack() as opened:
        waiting = [opened.enter_context(socket.socket()) for _ in range(BURST)]
        poll = select.poll()
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
            poll.register(one, select.POLLOUT)
        connected, rounds = len(poll.poll(100)), 0
        while len(server.server_state.connections) < connected:
            await asyncio.sleep(0)
            rounds += 1
    await server.shutdown()
    assert all(not one.sockets for one in server.servers)
    return connected, rounds


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel keeps 128")
@pytest.mark.parametrize("run", [uvloop.run, asyncio.run], ids=["uvloop", "asyncio"])
def test_a_burst_is_neither_dropped_nor_accepted_one_by_one(run: Callable) -> None:
    """A queue of 256 overflowed; who did not fit was let in one to three seconds later, /healthz too."""
    if int(Path("/proc/sys/net/core/somaxconn").read_text()) < BURST:
        pytest.skip("the kernel's own limit is lower")
    connected, rounds = run(burst())
    assert connected == BURST
    assert rounds < 4 * BURST / AT_ONCE
