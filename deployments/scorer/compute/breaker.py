"""A circuit breaker: a member that fails or hangs is fenced off, and tried again from time to time."""

from __future__ import annotations

import time


class Breaker:
    """Fences a member off after several failures in a row, or while a call of it hangs.

    A fenced member is asked by one request every `retry_s`, unless it still hangs; one success closes the breaker. Used
    in the event loop's thread alone.

    Args:
        failures: failures in a row after which the member is fenced off.
        retry_s: seconds after which a fenced member is tried again.

    Attributes:
        reason: the last failure, "" after a success.

    Example:
        >>> breaker = Breaker(failures=2, retry_s=15.0)
        >>> breaker.failed("out of memory"), breaker.failed("out of memory")
        (False, True)
        >>> breaker.fenced, breaker.admits()
        (True, False)
    """

    def __init__(self, failures: int, retry_s: float) -> None:
        self._allowed, self._retry_s = failures, retry_s
        self._failed = 0
        self._retry_at = 0.0
        self._hangs = False
        self.reason = ""

    @property
    def fenced(self) -> bool:
        """Whether the member is not asked at present, except to try it again."""
        return self._hangs or self._failed >= self._allowed

    def admits(self) -> bool:
        """Tell whether the member may be asked now; a True for a fenced one starts the pause until the next try."""
        if not self.fenced:
            return True
        if self._hangs or time.monotonic() < self._retry_at:
            return False
        self._retry_at = time.monotonic() + self._retry_s
        return True

    def succeeded(self) -> None:
        """Record an answer: the breaker is closed."""
        self._failed, self._hangs, self.reason = 0, False, ""

    def failed(self, reason: str) -> bool:
        """Count a failure.

        Args:
            reason: what failed, in one sentence.

        Returns:
            Whether this is the failure that fences the member off.
        """
        self._failed += 1
        self.reason = reason
        self._retry_at = time.monotonic() + self._retry_s
        return self._failed == self._allowed

    def hangs(self, reason: str) -> None:
        """Record that a call hangs: the member is fenced off until :meth:`returned`, and then until a success.

        Args:
            reason: what is waited for, in one sentence.
        """
        self._hangs, self.reason = True, reason
        self._failed = max(self._failed, self._allowed)

    def returned(self) -> None:
        """Record that the call that hung is over: the member may be tried again in `retry_s` seconds."""
        self._hangs = False
        self._retry_at = time.monotonic() + self._retry_s
