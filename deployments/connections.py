"""Limits on what one server's clients may hold: connections, unfinished requests, header and body bytes.

uvicorn waits for ever for the end of a header or of a body, and keeps all of it. The protocol class that
:func:`limited_protocol` makes is uvicorn's own with these rules added:

- The header of a request has a time, a size and a number of fields; a body has a time and a least rate.
- The bodies of all requests together have one budget of bytes. A request keeps its share until it is answered.
- Connections are bounded, in all and for each address. When there are too many, the one is closed that has kept the
  server waiting longest for the bytes that it has sent, so that a new client is heard although others hold connections.
- A request that is complete begins before those whose bodies are still coming, of which few begin at a time.
- When every connection has a request that is being answered, a reserve is left, in which only some paths are answered.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from esci_tournament.deployments.crowd import ConnectionLimits, Crowd, place_of
from esci_tournament.deployments.room import Waiting

_LINGER_BYTES = 2**24  # of a request that was refused, after which its client is not heard out
_PIPELINED = 16  # requests of a connection that may wait for the answer to the one before
_FRAMING_BYTES = 2**16  # chunk sizes, extensions and trailers of a body that is shorter than they are


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
        self._application, self.app = self.app, self._in_turn
        self._turn: asyncio.Future[None] | None = None

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection, or close it; called by asyncio."""
        super().connection_made(transport)
        self.address = place_of(self.client[0]) if self.client else ""
        if not self.crowd.enter(self):
            self._refused = True
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give back what the connection holds; called by asyncio."""
        self.crowd.leave(self)
        self._give_back()
        super().connection_lost(exc)
        self._take_turn()

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
        self._take_turn()

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

    async def _in_turn(self, scope: Any, receive: Any, send: Any) -> None:
        """Ask the application; if the body is still coming, after requests that are complete."""
        if self._reading == "body" and len(self._owed) < 2:
            cycle, self._turn = self.cycle, self.crowd.turns.wait(self.loop)
            await self._turn
            if cycle.disconnected:
                return
        await self._application(scope, receive, send)

    def _take_turn(self) -> None:
        """Go on at once with a request that waits for its turn."""
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)
        self._turn = None

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
        self._take_turn()
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
