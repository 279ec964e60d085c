"""Who is let in: API keys and rates of requests, and the names that a scorer on loopback answers to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from esci_tournament.deployments.same_origin import SameOrigin
from esci_tournament.deployments.scorer.admission import Bucket, Overloaded
from esci_tournament.deployments.scorer.keys import Key, Keys
from esci_tournament.registry.errors import StoreError

_log = logging.getLogger("scorer")

ONE_REQUEST_BYTES = 2**16  # a larger body counts as several requests
_DIGITS = 10  # of a size that can be meant: a larger one is refused anyway
# Keys that may wait for scrypt; more are refused with 429. One is computed at a time, so that guessing takes no more
# than one core.
_VERIFYING = 16


class Stranger(Exception):
    """Raised for a request without a good API key, where one is needed."""


class Closed(Exception):
    """Raised for every request that needs a key while the keys cannot be read."""


@dataclass
class Gate:
    """Checks API keys and rates, in the event loop.

    Attributes:
        keys: the API keys of the home.
        rate_per_s: requests a second of a key that has no rate of its own; None for no limit.
        burst_s: seconds' worth of requests that a key may send at once.
        open: whether requests without a key are let in as long as no key was ever made; set on a loopback address.
    """

    keys: Keys
    rate_per_s: float | None
    burst_s: float
    open: bool
    _buckets: dict[str, Bucket] = field(default_factory=dict)
    _one_at_a_time: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    _waiting: int = 0
    _told: str = ""

    async def admit(self, request: Request) -> None:
        """Check a request's API key and take one request off its rate.

        Args:
            request: its header `X-API-Key`, or `Authorization: Bearer`, has the key.

        Raises:
            Stranger: if a key is needed and the request has no good one.
            Closed: if the keys cannot be read.
            Overloaded: if the key has used up its rate, or too many unknown keys are being verified.
        """
        try:
            if self.open and not self.keys.required:
                return
            key = await self._key(_text(request))
        except StoreError as error:
            self._tell(str(error))
            raise Closed("the API keys cannot be read; the scorer's log says why") from error
        rate = key.rate_per_s or self.rate_per_s
        if rate is None:
            return
        bucket = self._buckets.get(key.id)
        if bucket is None or bucket.rate != rate:
            bucket = self._buckets[key.id] = Bucket(rate, self.burst_s)
        bucket.take()
        request.state.bucket, request.state.paid = bucket, 0
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and len(declared) < _DIGITS:  # before it is read: several may be sent at once
            self.charge(request, int(declared))

    def charge(self, request: Request, size: int) -> None:
        """Take a large request off its key's rate as often as it is larger than others.

        Args:
            request: one that was let in.
            size: of its body, bytes; what it has paid for its declared size is not taken again.
        """
        bucket = getattr(request.state, "bucket", None)
        price = size // ONE_REQUEST_BYTES
        if bucket is not None and price > request.state.paid:
            bucket.charge(price - request.state.paid)
            request.state.paid = price

    async def admits(self, request: Request) -> bool:
        """Tell whether :meth:`admit` lets a request in; it takes one request off the rate, too."""
        try:
            await self.admit(request)
        except (Stranger, Closed, Overloaded):
            return False
        return True

    @property
    def works(self) -> bool:
        """Whether the keys can be read, if there are any."""
        try:
            self.keys.all()
        except StoreError as error:
            self._tell(str(error))
            return False
        return True

    def _tell(self, trouble: str) -> None:
        if trouble != self._told:
            _log.error("every request is refused: %s", trouble)
            self._told = trouble

    async def _key(self, text: str) -> Key:
        known = self.keys.known(text) if text else False
        if known is None:
            if self._waiting >= _VERIFYING:
                raise Overloaded("too many unknown keys at once", 1)
            self._waiting += 1
            try:
                async with self._one_at_a_time:
                    known = await asyncio.get_running_loop().run_in_executor(None, self.keys.verify, text)
            finally:
                self._waiting -= 1
        if not isinstance(known, Key):
            raise Stranger("a good API key is needed: Authorization: Bearer KEY, or X-API-Key: KEY")
        return known


class OwnHost:
    """ASGI middleware that refuses requests of pages of other sites, and under other names, with 403.

    A page of another site can have a name of its own resolve to this machine, and so speak to a server on loopback.

    Args:
        app: the application behind it.
        hosts: names that `Host` may have, with any port.
        answer: called with a sentence; returns the response that refuses.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], answer: Callable[[str], ASGIApp]) -> None:
        self._app, self._answer = app, answer
        self._rule = SameOrigin(app, [f"{scheme}://{host}" for host in hosts for scheme in ("http", "https")], hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and self._rule.complaint(scope):
            host = Headers(scope=scope).get("host", "")
            message = f"a page of another site may not ask this scorer, and it does not go by the name {host[:100]!r}"
            await self._answer(f"{message}; add the name to the setting public_hosts")(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _text(request: Request) -> str:
    if own := request.headers.get("x-api-key"):
        return own
    kind, _, text = request.headers.get("authorization", "").partition(" ")
    return text.strip() if kind.lower() == "bearer" else ""
