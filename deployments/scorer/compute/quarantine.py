"""Pages that processes were lost with: they are computed alone, and then not at all, for a while."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

from esci_tournament.deployments.scorer.compute.pairs import HARMLESS, Pairs

_SECONDS = 60.0
_MOST = 10_000  # pages that are remembered
_LOSSES = 2  # of one page, or of different pages with one query, from which on it is held


class Quarantine:
    """Remembers for a minute with which pages a process was lost, for each member.

    After one loss the page, and others with its query, are in doubt: the machine may have been to blame. A page is held
    after two losses. A query is held after losses with two different pages: then it is the query that a member cannot
    bear, and not a product. Used in the event loop's thread alone.

    Args:
        clock: returns the time in seconds, growing.

    Example:
        >>> quarantine, page = Quarantine(), Pairs("aaaa", "us", HARMLESS.texts)
        >>> quarantine.add("minilm/1", page)
        >>> quarantine.doubts("minilm/1", page), quarantine.holds("minilm/1", page)
        (True, False)
        >>> quarantine.add("minilm/1", page)
        >>> quarantine.holds("minilm/1", page), quarantine.holds("e5/1", page)
        (True, False)
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lost: dict[tuple[str, str, bytes], tuple[float, int]] = {}  # member, query, digest -> until, losses

    def add(self, member: str, pairs: Pairs) -> None:
        """Record that a process was lost with a page.

        Args:
            member: candidate id.
            pairs: the page.
        """
        if pairs is HARMLESS:
            return
        now, key = self._clock(), (member, pairs.query, _digest(pairs))
        self._lost = {one: facts for one, facts in list(self._lost.items())[-_MOST:] if facts[0] > now}
        self._lost[key] = now + _SECONDS, self._lost.get(key, (now, 0))[1] + 1

    def doubts(self, member: str, pairs: Pairs) -> bool:
        """Tell whether a page is computed alone: it, or one with its query, was lost with a process.

        Args:
            member: candidate id.
            pairs: the page.

        Returns:
            Whether it is in doubt.
        """
        return bool(self._pages(member, pairs))

    def holds(self, member: str, pairs: Pairs) -> bool:
        """Tell whether a member must not be asked about a page now.

        Args:
            member: candidate id.
            pairs: the page.

        Returns:
            Whether the page, or its query, is held.
        """
        pages = self._pages(member, pairs)
        return len(pages) >= _LOSSES or (bool(pages) and pages.get(_digest(pairs), 0) >= _LOSSES)

    def _pages(self, member: str, pairs: Pairs) -> dict[bytes, int]:
        """Return the pages with this query that were lost: digest -> losses."""
        if not self._lost:
            return {}
        now, wanted = self._clock(), (member, pairs.query)
        return {key[2]: facts[1] for key, facts in self._lost.items() if key[:2] == wanted and facts[0] > now}


def _digest(pairs: Pairs) -> bytes:
    return hashlib.blake2b(pairs.encoded, digest_size=16).digest()
