"""Limits on requests: the pairs that may wait for the members are bounded, and each API key has a rate."""

from __future__ import annotations

import math
import time


class Overloaded(Exception):
    """Raised when a request is refused because of a limit.

    Args:
        message: Which limit, in one sentence.
        retry_after_s: Seconds after which another try makes sense.
    """

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Admission:
    """A bound on the pairs that wait or are being scored; used by the event loop's thread alone.

    A page is let in when nothing is under way, however large it is.

    Args:
        most_pairs: Pairs that may be under way.
    """

    def __init__(self, most_pairs: int) -> None:
        self.most_pairs, self.pairs = most_pairs, 0
        self._rate = 0.0  # pairs a second that were finished lately
        self._finished, self._since = 0, time.monotonic()

    @property
    def crowded(self) -> bool:
        """Whether more than half of the bound is under way: then optional work is left out."""
        return self.pairs > self.most_pairs / 2

    def enter(self, pairs: int) -> None:
        """Count the pairs of a page as under way.

        Args:
            pairs: Pairs of the page that must be scored.

        Raises:
            Overloaded: if too many pairs are under way. Its `retry_after_s` is the time that they take at the present
                rate, 1 to 30 s.
        """
        if self.pairs and self.pairs + pairs > self.most_pairs:
            wait = min(max(math.ceil(self.pairs / self._rate) if self._rate else 1, 1), 30)
            message = f"{self.pairs} pairs wait for the members (setting queued_pairs: {self.most_pairs})"
            raise Overloaded(message, wait)
        self.pairs += pairs

    def leave(self, pairs: int) -> None:
        """Count the pairs of a page, as many as it entered with, as finished."""
        self.pairs -= pairs
        self._finished += pairs
        elapsed = time.monotonic() - self._since
        if elapsed >= 1:
            self._rate = self._finished / elapsed
            self._finished, self._since = 0, time.monotonic()


class Bucket:
    """A token bucket that limits the requests of one API key.

    Args:
        rate: Requests a second.
        burst_s: Seconds' worth of requests that may come at once, at least one request.

    Example:
        >>> bucket = Bucket(rate=0.5, burst_s=2.0)
        >>> bucket.take()
        >>> bucket.take()
        Traceback (most recent call last):
        ...
        esci_tournament.deployments.scorer.admission.Overloaded: this key may send 0.5 requests a second
    """

    def __init__(self, rate: float, burst_s: float) -> None:
        self.rate, self._most = rate, max(rate * burst_s, 1.0)
        self._tokens, self._at = self._most, time.monotonic()

    def charge(self, requests: int) -> None:
        """Take further tokens for a request that was let in; those that are missing are waited for by the next one.

        Args:
            requests: number of tokens.
        """
        self._tokens -= requests

    def take(self) -> None:
        """Take one token for one request.

        Raises:
            Overloaded: if there is none. Its `retry_after_s` is the time until there is one, in whole seconds.
        """
        now = time.monotonic()
        self._tokens = min(self._most, self._tokens + (now - self._at) * self.rate)
        self._at = now
        if self._tokens < 1:
            wait = max(math.ceil((1 - self._tokens) / self.rate), 1)
            raise Overloaded(f"this key may send {self.rate:g} requests a second", wait)
        self._tokens -= 1
