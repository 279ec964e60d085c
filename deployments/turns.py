"""The order in which requests begin whose bodies are still coming."""

from __future__ import annotations

import asyncio
from collections import deque

AT_ONCE = 4  # requests that begin in one round of the event loop


class Turns:
    """Lets requests begin, a few in each round of the event loop, so that hundreds of them do not fill one round.

    A request that is complete needs no turn: it begins before all that wait.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._going_on = False

    def wait(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        """Return what is done when it is the caller's turn, unless somebody sets its result before.

        Args:
            loop: the running event loop.
        """
        turn = loop.create_future()
        self._waiting.append(turn)
        if not self._going_on:
            self._going_on = True
            loop.call_soon(self._next, loop)
        return turn

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        begun = 0
        while self._waiting and begun < AT_ONCE:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                begun += 1
        self._going_on = bool(self._waiting)
        if self._going_on:
            loop.call_soon(self._next, loop)
