"""Which connection of a server is closed to make room for another.

Connections with an unfinished request and unused ones share the room: one of the kind is closed of which there are
more. Of unused ones it is the one that has been unused longest. Of the others it is one that was refused and may still
read why, or else the one whose client has kept the server waiting longest. Bytes of a body that have come shorten the
time, so that a client that sends a large body is kept, and one that trickles is not. Where the connections of all
clients are meant, the time is multiplied by the square root of the number of such connections of the same address: a
flood from one place is paid for by that place, and one from a thousand places by those that have waited longest, not by
a few honest clients that share an address.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterator
from enum import IntEnum
from typing import Protocol

_ALL = None  # in place of an address
_LOOKS = 8  # at bodies that make progress, before one of them is closed
_BYTES = 2**14  # of a body that halve its time
_LINGERING_S = 1e6  # as if it had waited so much longer: who was refused, and may still read why, goes first


class Waiting(IntEnum):
    """What a connection waits for."""

    LINGER = 0  # its client, to close it: it was answered, or refused, before its request was complete
    HEAD = 1  # the header of a request, or its first one
    BODY = 2
    IDLE = 3  # its next request
    BUSY = 4  # the server itself


_UNFINISHED, _UNUSED = (Waiting.LINGER, Waiting.HEAD, Waiting.BODY), (Waiting.IDLE,)


class Guest(Protocol):
    """The interface of a connection.

    Attributes:
        waiting: what it waits for.
        since: since when, seconds of `time.monotonic`.
        address: of the client, see `crowd.place_of`.
        taken: bytes of bodies that it holds.
        loop: its event loop.
        transport: its transport.
    """

    waiting: Waiting
    since: float
    address: str
    taken: int
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport

    @property
    def paused(self) -> bool:
        """Whether the server has stopped reading, because it has not used yet what came before."""

    def drop(self) -> None:
        """Close the connection without a word, to make room."""

    def expire(self) -> None:
        """Close the connection because its client was too slow."""


class Room:
    """The connections of a server, by address and by what they wait for; all operations take constant time."""

    def __init__(self) -> None:
        self._queues: dict[str | None, _Queues] = {_ALL: _Queues()}
        self._crowds = {kinds: _Ranking() for kinds in (_UNFINISHED, _UNUSED)}

    def __len__(self) -> int:
        return len(self._queues[_ALL])

    def of(self, address: str) -> int:
        """Return the number of connections of an address."""
        return len(self._queues.get(address, ()))

    def waiting_for(self, kind: Waiting) -> list[Guest]:
        """Return the connections that wait for something; except for bodies, by the beginning of their waiting."""
        return list(self._queues[_ALL].kinds[kind])

    def add(self, one: Guest) -> None:
        """Add a connection; its `waiting` and its `address` change only by :meth:`move` from now on."""
        own = self._queues.setdefault(one.address, _Queues())
        for queues in (self._queues[_ALL], own):
            queues.kinds[one.waiting][one] = None
        self._rank(one.address, own)

    def discard(self, one: Guest) -> bool:
        """Remove a connection, and return whether it was there."""
        if not self._has(one):
            return False
        own = self._queues[one.address]
        for queues in (self._queues[_ALL], own):
            del queues.kinds[one.waiting][one]
        self._rank(one.address, own)
        if not len(own):
            del self._queues[one.address]
        return True

    def move(self, one: Guest, kind: Waiting) -> None:
        """Let a connection wait for something else from now on, also one that is not in the room."""
        if self._has(one):
            own = self._queues[one.address]
            for queues in (self._queues[_ALL], own):
                del queues.kinds[one.waiting][one]
                queues.kinds[kind][one] = None
            self._rank(one.address, own)
        one.waiting, one.since = kind, time.monotonic()

    def victim(self, address: str | None = None) -> Guest | None:
        """Return the connection that is to be closed.

        Args:
            address: whose connections are meant; None for all.

        Returns:
            The connection; None if all wait for the server itself.
        """
        if address not in self._queues:
            return None
        now, queues = time.monotonic(), self._queues[address]
        for kinds in sorted(self._crowds, key=queues.count, reverse=True):
            found = list(queues.oldest(kinds))
            if address is _ALL and (crowded := self._crowds[kinds].first) is not None:
                found += self._queues[crowded].oldest(kinds)
            if found:
                return max(found, key=lambda one: _cost(one, now) * self._queues[one.address].count(kinds) ** 0.5)
        return None

    def _has(self, one: Guest) -> bool:
        return one in self._queues[_ALL].kinds[one.waiting]

    def _rank(self, address: str, queues: _Queues) -> None:
        for kinds, ranking in self._crowds.items():
            ranking.put(address, queues.count(kinds))


class _Queues:
    """Connections by what they wait for, those first that are closed first."""

    def __init__(self) -> None:
        self.kinds: dict[Waiting, OrderedDict[Guest, None]] = {kind: OrderedDict() for kind in Waiting}

    def __len__(self) -> int:
        return sum(map(len, self.kinds.values()))

    def count(self, kinds: tuple[Waiting, ...]) -> int:
        return sum(len(self.kinds[kind]) for kind in kinds)

    def oldest(self, kinds: tuple[Waiting, ...]) -> Iterator[Guest]:
        """Yield those of some kinds among which the one is that is to be closed."""
        for kind in kinds:
            if kind is Waiting.BODY:
                yield from self._bodies()
            elif self.kinds[kind]:
                yield next(iter(self.kinds[kind]))

    def _bodies(self) -> Iterator[Guest]:
        queue = self.kinds[Waiting.BODY]
        for _ in range(min(_LOOKS, len(queue))):
            one = next(iter(queue))
            if not one.paused:
                yield one
                if one.taken < _BYTES:
                    return  # those that follow have waited less, or have sent more
            queue.move_to_end(one)


class _Ranking:
    """Which address has most of something; each step takes constant time, as numbers change by one."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._addresses: dict[int, OrderedDict[str, None]] = {}
        self._highest = 0

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def first(self) -> str | None:
        return next(iter(self._addresses[self._highest])) if self._highest else None

    def put(self, address: str, number: int) -> None:
        """Note the number of an address."""
        before = self._numbers.pop(address, 0)
        if number:
            self._numbers[address] = number
        if before == number:
            return
        if number:
            self._addresses.setdefault(number, OrderedDict())[address] = None
            self._highest = max(self._highest, number)
        if before:
            del self._addresses[before][address]
            if not self._addresses[before]:
                del self._addresses[before]
                if before == self._highest:
                    self._highest = number


def _cost(one: Guest, now: float) -> float:
    """Return how long a client has kept the server waiting, in seconds without a byte."""
    if one.waiting is Waiting.LINGER:
        return now - one.since + _LINGERING_S
    sent = one.taken if one.waiting is Waiting.BODY else 0
    return (now - one.since) / (1 + sent / _BYTES)
