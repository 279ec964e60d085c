"""Pages that processes were lost with, which are not computed again for a while."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

from esci_tournament.deployments.scorer.compute.pairs import HARMLESS, Pairs

_SECONDS = 60.0
_MOST = 10_000  # pages and queries that are remembered
_PAGES = 2  # different pages with one query after which all pages with it are held


class Quarantine:
    """Remembers for a minute which pages, and which queries, a member must not be asked about.

    One page is enough for itself. A query is held after two different pages with it: then it is the query that a member
    cannot bear, and not a product. Used in the event loop's thread alone.

    Args:
        clock: returns the time in seconds, growing.

    Example:
        >>> held, page = Quarantine(), Pairs("aaaa", "us", HARMLESS.texts)
        >>> held.add("minilm/1", page)
        >>> held.holds("minilm/1", page), held.holds("minilm/1", HARMLESS), held.holds("e5/1", page)
        (True, False, False)
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[tuple[str, str, bytes], float] = {}  # member, query and digest of a page, b"" for all

    def add(self, member: str, pairs: Pairs) -> None:
        """Hold a page; and its query, when another page with it is held already.

        Args:
            member: candidate id.
            pairs: the page.
        """
        if pairs is HARMLESS:
            return
        now = self._clock()
        self._until = {key: until for key, until in list(self._until.items())[-_MOST:] if until > now}
        self._until[member, pairs.query, _digest(pairs)] = now + _SECONDS
        pages = [page for name, query, page in self._until if (name, query) == (member, pairs.query) and page]
        if len(pages) >= _PAGES:
            self._until[member, pairs.query, b""] = now + _SECONDS

    def holds(self, member: str, pairs: Pairs) -> bool:
        """Tell whether a member must not be asked about a page now.

        Args:
            member: candidate id.
            pairs: the page.

        Returns:
            Whether the page, or its query, is held.
        """
        if not self._until:
            return False
        keys = ((member, pairs.query, b""), (member, pairs.query, _digest(pairs)))
        return any(self._until.get(key, 0.0) > self._clock() for key in keys)


def _digest(pairs: Pairs) -> bytes:
    return hashlib.blake2b(pairs.encoded, digest_size=16).digest()
