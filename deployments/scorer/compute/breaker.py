"""A circuit breaker: a member that fails or hangs is fenced off, and tried again from time to time."""

from __future__ import annotations

import time


class Breaker:
    """Closed (the member is asked), or fenced: after `failures` in a row, or while a call of it hangs.

    A fenced member is asked by one request every `retry_s`, unless it still hangs; one success closes the breaker. Used
    in the event loop's thread alone.
    """

    def __init__(self, failures: int, retry_s: float) -> None:
        self._allowed, self._retry_s = failures, retry_s
        self._failed = 0
        self._retry_at = 0.0
        self._hangs = False
        self.reason = ""

    @property
    def fenced(self) -> bool:
        return self._hangs or self._failed >= self._allowed

    def admits(self) -> bool:
        """Tell whether a question may be put; of a fenced member's it is the one that tries."""
        if not self.fenced:
            return True
        if self._hangs or time.monotonic() < self._retry_at:
            return False
        self._retry_at = time.monotonic() + self._retry_s
        return True

    def succeeded(self) -> None:
        """An answer came."""
        self._failed, self._hangs, self.reason = 0, False, ""

    def failed(self, reason: str) -> bool:
        """Count a failure; return whether it is the one that fences."""
        self._failed += 1
        self.reason = reason
        self._retry_at = time.monotonic() + self._retry_s
        return self._failed == self._allowed

    def hangs(self, reason: str) -> None:
        """Fence until :meth:`returned`, and then until a success."""
        self._hangs, self.reason = True, reason
        self._failed = max(self._failed, self._allowed)

    def returned(self) -> None:
        """The call that hung is over: the member may be tried again after a while."""
        self._hangs = False
        self._retry_at = time.monotonic() + self._retry_s
