"""API keys and rates of requests."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from fastapi import Request

from esci_tournament.deployments.scorer.admission import Bucket, Overloaded
from esci_tournament.deployments.scorer.keys import Key, Keys

# Keys that may wait for scrypt; more are refused with 429. One is computed at a time, so that guessing takes no more
# than one core.
_VERIFYING = 16


class Stranger(Exception):
    """Raised for a request without a good API key, where one is needed."""


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

    async def admit(self, request: Request) -> None:
        """Check a request's API key and take one request off its rate.

        Args:
            request: its header `X-API-Key`, or `Authorization: Bearer`, has the key.

        Raises:
            Stranger: if a key is needed and the request has no good one.
            Overloaded: if the key has used up its rate, or too many unknown keys are being verified.
        """
        if self.open and not self.keys.configured:
            return
        key = await self._key(_text(request))
        rate = key.rate_per_s or self.rate_per_s
        if rate is None:
            return
        bucket = self._buckets.get(key.id)
        if bucket is None or bucket.rate != rate:
            bucket = self._buckets[key.id] = Bucket(rate, self.burst_s)
        bucket.take()

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


def _text(request: Request) -> str:
    if own := request.headers.get("x-api-key"):
        return own
    kind, _, text = request.headers.get("authorization", "").partition(" ")
    return text.strip() if kind.lower() == "bearer" else ""
