"""Limits on what one server's clients may hold: connections, unfinished requests, header and body bytes.

uvicorn waits for ever for the end of a header or of a body, and keeps all of it. The protocol class that
:func:`limited_protocol` makes is uvicorn's own with these rules added:

- The header of a request has a time, a size and a number of fields; a body has a time and a least rate.
- The bodies of all requests together have one budget of bytes. A request keeps its share until it is answered.
- Connections are bounded, in all and for each address. When there are too many, the one is closed that has kept the
  server waiting longest with an unfinished request, so that a new client is heard although others hold connections.
- When every connection has a request that is being answered, a reserve is left, in which only some paths are answered.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import resource
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import IntEnum
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

_log = logging.getLogger("connections")

_SWEEP_S = 0.2
_LINGER_S = 3.0  # in which a client that was refused may read why, while the rest of its request is thrown away
_LINGER_BYTES = 2**24
_UNREAD_S = 20.0  # in which a client must read its answer
_GRACE_S = 2.0  # of a body before its rate counts
_PIPELINED = 16  # requests of a connection that may wait for the answer to the one before
_FRAMING_BYTES = 2**16  # chunk sizes, extensions and trailers of a body that is shorter than they are
_OTHER_DESCRIPTORS = 200  # files, sockets and memory maps of the process that are no connections
BACKLOG = 256  # connections that are accepted before the first of them is looked at


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


class Waiting(IntEnum):
    """What a connection waits for. Of those that wait for their client, the first kinds are closed first."""

    LINGER = 0  # it was answered, or refused, before its request was complete
    HEAD = 1  # the header of a request, or its first one
    BODY = 2
    IDLE = 3  # its next request
    BUSY = 4  # the server itself


class Crowd:
    """The connections of one server and what they hold; used in the event loop's thread.

    Args:
        limits: what they may hold.
        refused: called with a word for each refusal: connections, address, head, body, budget, pipeline or slow.

    Attributes:
        bodies: bytes of request bodies that are held.
    """

    def __init__(self, limits: ConnectionLimits, refused: Callable[[str], None] = lambda why: None) -> None:
        self.limits, self.refused = limits.affordable(), refused
        self.bodies = 0
        self._networks = [ipaddress.ip_network(proxy, strict=False) for proxy in limits.proxies]
        self._kinds: dict[Waiting, OrderedDict[LimitedProtocol, None]] = {kind: OrderedDict() for kind in Waiting}
        self._addresses: Counter[str] = Counter()
        self._sweeping: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return sum(map(len, self._kinds.values()))

    @property
    def crowded(self) -> bool:
        """Whether there are more connections than the limit, so that only reserved paths are answered."""
        return len(self) > self.limits.connections

    def enter(self, one: LimitedProtocol) -> bool:
        """Count a new connection; others may be closed for it.

        Args:
            one: the connection.

        Returns:
            Whether there is room for it.
        """
        most = self.limits.per_address
        if most is not None and self._addresses[one.address] >= most and not self._trusted(one.address):
            self.refused("address")
            if not self._close_one(one.address):
                return False
        if len(self) >= self.limits.connections and not self._close_one():
            self.refused("connections")
            if len(self) >= self.limits.connections + self.limits.reserve:
                return False
        self._addresses[one.address] += 1
        self._kinds[one.waiting][one] = None
        if self._sweeping is None:
            self._sweeping = one.loop.call_later(_SWEEP_S, self._sweep, one.loop)
        return True

    def move(self, one: LimitedProtocol, kind: Waiting) -> None:
        """Let a connection wait for something else from now on."""
        if self._kinds[one.waiting].pop(one, _ABSENT) is None:
            self._kinds[kind][one] = None
        one.waiting, one.since = kind, time.monotonic()

    def leave(self, one: LimitedProtocol) -> None:
        """Count a connection no more."""
        if self._kinds[one.waiting].pop(one, _ABSENT) is None:
            self._addresses[one.address] -= 1
            if not self._addresses[one.address]:
                del self._addresses[one.address]

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
        own = ipaddress.ip_network(address)
        return any(own.version == one.version and own.subnet_of(one) for one in self._networks)  # type: ignore[arg-type]

    def _close_one(self, address: str | None = None) -> bool:
        """Close the connection that has waited longest for its client, of one address or of all."""
        now = time.monotonic()
        for kind in (Waiting.LINGER, Waiting.HEAD, Waiting.BODY, Waiting.IDLE):
            for one in self._kinds[kind]:
                if kind is Waiting.BODY and now - one.since < _GRACE_S:
                    break  # those that follow have waited less
                if not one.paused and (address is None or one.address == address):
                    one.drop()
                    return True
        return False

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now, limits = time.monotonic(), self.limits
        for kind, seconds in (
            (Waiting.LINGER, _LINGER_S),
            (Waiting.HEAD, limits.head_s),
            (Waiting.IDLE, limits.idle_s),
        ):
            for one in self._longer_than(kind, now - seconds):
                one.expire()
        for one in self._longer_than(Waiting.IDLE, now - _UNREAD_S):
            if one.transport.get_write_buffer_size():
                one.drop()
        for one in self._longer_than(Waiting.BODY, now - min(_GRACE_S, limits.body_s)):
            spent = now - one.since
            if one.paused:
                continue
            if spent > limits.body_s or one.taken < limits.body_rate * (spent - _GRACE_S):
                one.expire()
        self._sweeping = loop.call_later(_SWEEP_S, self._sweep, loop) if len(self) else None

    def _longer_than(self, kind: Waiting, moment: float) -> Iterator[LimitedProtocol]:
        """Yield the connections that have waited for something since before a moment; they may be closed meanwhile."""
        for one in list(self._kinds[kind]):
            if one.since >= moment:
                break
            yield one


_ABSENT = object()


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with limits; see :func:`limited_protocol`.

    Attributes:
        crowd: all connections of the server.
        waiting: what it waits for.
        since: since when, seconds of `time.monotonic`.
        address: of the client; of IPv6 the network of 64 bits, because whoever has one address there has all of it.
        taken: bytes of bodies that it holds.
    """

    crowd: Crowd

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.waiting, self.since, self.address, self.taken = Waiting.HEAD, time.monotonic(), "", 0
        self._reading = "nothing"  # or head, or body: the part of a request that has begun
        self._owed: deque[RequestResponseCycle] = deque()  # requests with a header and no answer yet, oldest first
        self._answered = False  # whether one has an answer
        self._head = self._framing = self._thrown = 0  # bytes
        self._refused = False

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection, or close it; called by asyncio."""
        super().connection_made(transport)
        self.address = _place_of(self.client[0]) if self.client else ""
        if not self.crowd.enter(self):
            self._refused = True
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give back what the connection holds; called by asyncio."""
        self.crowd.leave(self)
        self._give_back()
        super().connection_lost(exc)

    @property
    def paused(self) -> bool:
        """Whether the server has stopped reading, because it has not used yet what came before."""
        return bool(self.flow.read_paused)

    def drop(self) -> None:
        """Close the connection without a word, to make room."""
        self.crowd.leave(self)
        self._refused = True
        self.transport.abort()

    def expire(self) -> None:
        """Close the connection because its client was too slow."""
        nothing_asked = self.waiting is Waiting.IDLE or (self.waiting is Waiting.HEAD and not self._head)
        if self.waiting is Waiting.LINGER or nothing_asked:
            self.drop()
            return
        part = "header" if self.waiting is Waiting.HEAD else "body"
        self.crowd.refused("slow")
        self._refuse(408, f"{part}_timeout", f"the {part} did not come in time")

    def timeout_keep_alive_handler(self) -> None:
        """Do nothing: the crowd closes connections that are unused; called by uvicorn."""

    # The request

    def data_received(self, data: bytes) -> None:
        """Read what has arrived; called by asyncio."""
        if self._refused:
            self._thrown += len(data)
            if self._thrown > _LINGER_BYTES:
                self.drop()
            return
        if self._reading != "body":
            self._head += len(data)
        else:
            self._framing += len(data)
        super().data_received(data)
        if self._refused:
            return
        if self.waiting is Waiting.LINGER:
            self._thrown += len(data)
        limits = self.crowd.limits
        if self._reading == "head" and self._head > limits.head_bytes:
            self._too_large()
        elif self._reading == "body" and self._framing > limits.head_bytes + max(self.taken, _FRAMING_BYTES):
            self._refuse(400, "bad_framing", "the body has more framing than content")
        elif self._thrown > _LINGER_BYTES:
            self.drop()
        else:
            self._settle()

    def on_message_begin(self) -> None:
        """Note that a request begins; called by the parser."""
        super().on_message_begin()
        self._reading, self._framing = "head", 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header field, or a trailer; called by the parser.

        Raises:
            HttpParserError: when there are too many; the connection is refused already.
        """
        super().on_header(name, value)
        if len(self.headers) > self.crowd.limits.fields:
            self._too_large()
            raise httptools.HttpParserError

    def on_headers_complete(self) -> None:
        """Start the request, unless something forbids it; called by the parser.

        Raises:
            HttpParserError: when it is not started; the connection is refused already.
        """
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self.crowd.limits.head_bytes:
            self._too_large()
        elif self.crowd.crowded and self.url.partition(b"?")[0].decode("latin-1") not in self._reserved:
            self.crowd.refused("connections")
            self._refuse(503, "too_many_connections", "all connections are in use", retry=1)
        elif len(self._owed) >= _PIPELINED:
            self.crowd.refused("pipeline")
            self._refuse(429, "too_many_requests", "too many requests of this connection wait", retry=1)
        if self._refused:
            raise httptools.HttpParserError
        self._reading, self._head, self._framing = "body", 0, 0
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:  # else it is an upgrade
            self._owed.append(self.cycle)

    @property
    def _reserved(self) -> frozenset[str]:
        return self.crowd.limits.reserved_paths

    def on_body(self, body: bytes) -> None:
        """Take a part of a body; called by the parser.

        Raises:
            HttpParserError: when the budget is used up; the connection is refused already.
        """
        self._framing -= len(body)
        if self.cycle is None or self.cycle.response_complete:
            return
        if not self.crowd.take(len(body), self.taken):
            self.crowd.refused("budget")
            self._refuse(503, "too_many_bodies", "the bodies of other requests take all the memory for them", retry=1)
            raise httptools.HttpParserError
        self.taken += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that a request is complete; called by the parser."""
        self._reading = "nothing"
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Note that a request is answered; called by uvicorn."""
        self._owed.popleft()
        self._answered = True
        if not self._owed:
            self._give_back()
        super().on_response_complete()
        self._unset_keepalive_if_required()
        if self._refused:
            return
        if self.transport.is_closing():  # as soon as the client has read the answer
            self.crowd.move(self, Waiting.IDLE)
        else:
            self._settle()

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over, whose protocol has its own limits; called by uvicorn."""
        self.crowd.leave(self)
        self._give_back()
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, unless the connection is refused already; called by uvicorn."""
        if not self._refused:
            self._refuse(400, "bad_request", "this is no valid HTTP request")

    def _settle(self) -> None:
        if self._reading == "body" and len(self._owed) < 2:
            kind = Waiting.BODY if self._owed else Waiting.LINGER
        elif self._owed:
            kind = Waiting.BUSY
        elif self._reading == "head" or not self._answered:
            kind = Waiting.HEAD
        else:
            kind, self._head = Waiting.IDLE, 0
        if kind is not self.waiting:
            self._thrown = 0
            self.crowd.move(self, kind)

    def _give_back(self) -> None:
        self.crowd.bodies -= self.taken
        self.taken = 0

    def _too_large(self) -> None:
        if not self._refused:
            limits = self.crowd.limits
            self.crowd.refused("head")
            what = f"the header has more than {limits.head_bytes} bytes or {limits.fields} fields"
            self._refuse(431, "header_too_large", what)

    def _refuse(self, status: int, error: str, message: str, retry: int | None = None) -> None:
        """Answer in place of the application, and close the connection once the client has read it."""
        self._refused = True
        silent = any(cycle.response_started for cycle in self._owed)
        for cycle in self._owed:
            cycle.disconnected = True
            cycle.message_event.set()
        self.pipeline.clear()
        self._give_back()
        if silent:  # an answer is being sent: another one would stand in its middle
            self.drop()
            return
        body = json.dumps({"error": error, "message": message, "fields": []}).encode()
        more = f"retry-after: {retry}\r\n" if retry is not None else ""
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n{more}connection: close\r\n\r\n"
        )
        self.flow.resume_reading()
        self.transport.write(head.encode() + body)
        with suppress(OSError, NotImplementedError):
            self.transport.write_eof()
        self.crowd.move(self, Waiting.LINGER)


def _place_of(host: str) -> str:
    """Return whose connections are counted together, as a network.

    Example:
        >>> _place_of("2001:db8::1"), _place_of("192.0.2.7")
        ('2001:db8::/64', '192.0.2.7/32')
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return str(ipaddress.ip_network((address, 32 if address.version == 4 else 64), strict=False))


def limited_protocol(
    limits: ConnectionLimits, refused: Callable[[str], None] = lambda why: None
) -> type[LimitedProtocol]:
    """Return the class of a server's connections, for uvicorn's option `http`; each server needs its own.

    Args:
        limits: what its clients may hold.
        refused: called with a word for each refusal, see :class:`Crowd`.

    Returns:
        The class; its attribute `crowd` has the figures.
    """
    return type("LimitedProtocol", (LimitedProtocol,), {"crowd": Crowd(limits, refused)})
