"""What the clients of a server may hold: its connections, by what they wait for, and the bytes of their requests."""

from __future__ import annotations

import asyncio
import ipaddress
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice

from esci_tournament.deployments.room import Guest, Room, Waiting
from esci_tournament.deployments.turns import Turns

BACKLOG = 256  # connections that are accepted before the first of them is looked at
_GRACE_S = 2.0  # of a body before its rate counts
_SWEEP_S = 0.2
_SLICE = 32  # connections that are closed at once for being slow, so that others are served between
_NEXT_SLICE_S = 0.01
_LINGER_S = 3.0  # in which a client that was refused may read why, while the rest of its request is thrown away
_UNREAD_S = 20.0  # in which a client must read its answer
_OTHER_DESCRIPTORS = 200  # files, sockets and memory maps of the process that are no connections


@dataclass(frozen=True)
class ConnectionLimits:
    """What the clients of a server may hold.

    Attributes:
        connections: at once, in all; fewer where the process may open fewer files.
        per_address: of one address at once; None for no such limit.
        proxies: addresses or networks, such as "10.0.0.0/8", to which `per_address` does not apply.
        reserve: further connections, on which only `reserved_paths` are answered.
        reserved_paths: paths that are answered while all connections are busy.
        head_s: seconds for a request's header, from its first byte or from the opening of the connection.
        head_bytes: size of a header, request line included.
        fields: header fields of a request.
        body_s: seconds for a body.
        body_rate: bytes a second that a body must have on average, after its first two seconds.
        bodies_bytes: of all requests under way together; one that is alone may have more.
        idle_s: seconds between two requests of a connection.
    """

    connections: int = 1000
    per_address: int | None = 500
    proxies: tuple[str, ...] = ()
    reserve: int = 32
    reserved_paths: frozenset[str] = frozenset({"/healthz", "/readyz"})
    head_s: float = 10.0
    head_bytes: int = 2**15
    fields: int = 100
    body_s: float = 10.0
    body_rate: float = 1000.0
    bodies_bytes: int = 64 * 2**20
    idle_s: float = 75.0

    def affordable(self) -> ConnectionLimits:
        """Return these limits with as many connections as the process may open; at least 16.

        The limit of open files is raised to what the operating system allows, as far as that is needed.
        """
        needed = self.connections + self.reserve + BACKLOG + _OTHER_DESCRIPTORS
        files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        if resource.RLIM_INFINITY != files < needed:
            files = needed if most == resource.RLIM_INFINITY else min(needed, most)
            with suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
            files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            return replace(self, connections=max(min(self.connections, self.connections + files - needed), 16))
        return self


class Crowd:
    """The connections of one server and what they hold; used in the event loop's thread.

    Args:
        limits: what they may hold.
        refused: called with a word for each refusal: connections, address, head, body, budget, pipeline or slow.

    Attributes:
        bodies: bytes of request bodies that are held.
        room: the connections.
        turns: of requests whose bodies are still coming.
    """

    def __init__(self, limits: ConnectionLimits, refused: Callable[[str], None] = lambda why: None) -> None:
        self.limits, self.refused = limits.affordable(), refused
        self.bodies = 0
        self.room, self.turns = Room(), Turns()
        self._networks = [ipaddress.ip_network(proxy, strict=False) for proxy in limits.proxies]
        self._sweeping: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self.room)

    @property
    def crowded(self) -> bool:
        """Whether there are more connections than the limit, so that only reserved paths are answered."""
        return len(self) > self.limits.connections

    def enter(self, one: Guest) -> bool:
        """Count a new connection; others may be closed for it.

        Args:
            one: the connection.

        Returns:
            Whether there is room for it.
        """
        most = self.limits.per_address
        if most is not None and self.room.of(one.address) >= most and not self._trusted(one.address):
            self.refused("address")
            if not self._close_one(one.address):
                return False
        if len(self) >= self.limits.connections and not self._close_one():
            self.refused("connections")
            if len(self) >= self.limits.connections + self.limits.reserve:
                return False
        self.room.add(one)
        if self._sweeping is None:
            self._sweeping = one.loop.call_later(_SWEEP_S, self._sweep, one.loop)
        return True

    def move(self, one: Guest, kind: Waiting) -> None:
        """Let a connection wait for something else from now on."""
        self.room.move(one, kind)

    def leave(self, one: Guest) -> None:
        """Count a connection no more."""
        self.room.discard(one)

    def take(self, size: int, own: int) -> bool:
        """Take bytes of a body from the budget.

        Args:
            size: number of bytes.
            own: bytes that the same request has taken.

        Returns:
            Whether the budget allows it.
        """
        if self.bodies + size > self.limits.bodies_bytes and self.bodies > own:
            return False
        self.bodies += size
        return True

    def _trusted(self, address: str) -> bool:
        if not address:  # a Unix socket
            return True
        if not self._networks:
            return False
        own = ipaddress.ip_network(address)
        return any(own.version == one.version and own.subnet_of(one) for one in self._networks)  # type: ignore[arg-type]

    def _close_one(self, address: str | None = None) -> bool:
        """Close a connection, of one address or of all, and return whether there is one that may be closed."""
        one = self.room.victim(address)
        if one is not None:
            one.drop()
        return one is not None

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        late = list(islice(self._late(time.monotonic()), _SLICE))
        for one in late:
            one.expire()
        pause = _SWEEP_S if len(late) < _SLICE else _NEXT_SLICE_S
        self._sweeping = loop.call_later(pause, self._sweep, loop) if len(self) else None

    def _late(self, now: float) -> Iterator[Guest]:
        """Yield the connections whose clients were too slow."""
        limits = self.limits
        for kind, seconds in (
            (Waiting.LINGER, _LINGER_S),
            (Waiting.HEAD, limits.head_s),
            (Waiting.IDLE, limits.idle_s),
        ):
            yield from self._longer_than(kind, now - seconds)
        for one in self._longer_than(Waiting.IDLE, now - min(_UNREAD_S, limits.idle_s)):
            if one.since >= now - limits.idle_s and one.transport.get_write_buffer_size():
                yield one
        for one in self.room.waiting_for(Waiting.BODY):
            spent = now - one.since
            slow = spent > _GRACE_S and one.taken < limits.body_rate * (spent - _GRACE_S)
            if (slow or spent > limits.body_s) and not one.paused:
                yield one

    def _longer_than(self, kind: Waiting, moment: float) -> Iterator[Guest]:
        for one in self.room.waiting_for(kind):
            if one.since >= moment:
                break
            yield one


def place_of(host: str) -> str:
    """Return whose connections are counted together, as a network.

    Example:
        >>> place_of("2001:db8::1"), place_of("192.0.2.7")
        ('2001:db8::/64', '192.0.2.7/32')
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return str(ipaddress.ip_network((address, 32 if address.version == 4 else 64), strict=False))
