"""Who is let in: pairs that may wait for the members are bounded, and each API key has a rate."""

from __future__ import annotations

import math
import time


class Overloaded(Exception):
    """Raised when a page is turned away; `retry_after_s` says when it is worth another try."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Admission:
    """A bound on the pairs that are under way; used by the event loop's thread alone.

    A page is let in when nothing is under way, however large it is.
    """

    def __init__(self, most_pairs: int) -> None:
        self.most_pairs, self.pairs = most_pairs, 0
        self._rate = 0.0  # pairs a second that were finished lately
        self._finished, self._since = 0, time.monotonic()

    @property
    def crowded(self) -> bool:
        """Whether so much waits that nothing should be computed for nobody."""
        return self.pairs > self.most_pairs / 2

    def enter(self, pairs: int) -> None:
        """Let a page in.

        Raises:
            Overloaded: if too many pairs are under way.
        """
        if self.pairs and self.pairs + pairs > self.most_pairs:
            wait = min(max(math.ceil(self.pairs / self._rate) if self._rate else 1, 1), 30)
            message = f"{self.pairs} pairs wait for the members (setting queued_pairs: {self.most_pairs})"
            raise Overloaded(message, wait)
        self.pairs += pairs

    def leave(self, pairs: int) -> None:
        """A page has its answer."""
        self.pairs -= pairs
        self._finished += pairs
        elapsed = time.monotonic() - self._since
        if elapsed >= 1:
            self._rate = self._finished / elapsed
            self._finished, self._since = 0, time.monotonic()


class Bucket:
    """A token bucket: `rate` requests a second, `burst_s` seconds' worth of them at once."""

    def __init__(self, rate: float, burst_s: float) -> None:
        self.rate, self._most = rate, max(rate * burst_s, 1.0)
        self._tokens, self._at = self._most, time.monotonic()

    def take(self) -> None:
        """Take one token.

        Raises:
            Overloaded: if there is none.
        """
        now = time.monotonic()
        self._tokens = min(self._most, self._tokens + (now - self._at) * self.rate)
        self._at = now
        if self._tokens < 1:
            wait = max(math.ceil((1 - self._tokens) / self.rate), 1)
            raise Overloaded(f"this key may send {self.rate:g} requests a second", wait)
        self._tokens -= 1
