"""Counts of the most frequent pairs, whose labels are put into the cache before a new champion serves."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from esci_tournament.deployments.scorer.cache import LabelCache, entries_of, pair_keys
from esci_tournament.registry.files import write_atomically

_FORM = 2
_TEXT_OF_AN_ID = 200  # characters; pairs with longer ids or queries are not counted, to bound the memory
_TEXT_OF_A_QUERY = 1000

Page = tuple[str, str, list[str]]  # locale, query, product ids


class Frequent:
    """Counts of pairs in bounded memory; the most frequent pairs are always among those kept. Safe in any thread.

    Misra and Gries (1982), pruned in batches as by Agarwal et al. (2013, "Mergeable summaries"): when twice `capacity`
    pairs are counted, the count of the `capacity`-th is taken off all of them and who has none left goes. A pair seen
    more than `total / capacity` times is kept, and no count is too low by more than `lost`.

    Args:
        capacity: number of most frequent pairs that are of interest; twice as many are counted.

    Attributes:
        total: pairs seen, halved by :meth:`fade`.
        lost: by how much a count may be too low.

    Example:
        >>> frequent = Frequent(capacity=100)
        >>> frequent.seen("us", "red lamp", ["B1", "B2"])
        >>> frequent.seen("us", "red lamp", ["B1"])
        >>> frequent.most(1)
        [(('us', 'red lamp', 'B1'), 2)]
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = max(capacity, 1)
        self.total = self.lost = 0
        self._counts: dict[tuple[str, str, str], int] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._counts)

    def seen(self, locale: str, query: str, product_ids: Sequence[str]) -> None:
        """Count the pairs of one page.

        Args:
            locale: locale of the page.
            query: query of the page as it was sent, as in the cache's keys. A page with one of more than 1,000
                characters is ignored.
            product_ids: ids of the products; those of more than 200 characters are ignored.
        """
        if len(query) > _TEXT_OF_A_QUERY:
            return
        with self._lock:
            counts = self._counts
            for product in product_ids:
                if len(product) <= _TEXT_OF_AN_ID:
                    pair = locale, query, product
                    counts[pair] = counts.get(pair, 0) + 1
            self.total += len(product_ids)
            if len(counts) > 2 * self.capacity:
                self._prune()

    def most(self, limit: int) -> list[tuple[tuple[str, str, str], int]]:
        """Return the `limit` most frequent pairs, by falling count.

        Args:
            limit: number of pairs.

        Returns:
            Each pair as (locale, query, product id), and its count.
        """
        with self._lock:
            ranked = sorted(self._counts.items(), key=lambda one: (-one[1], one[0]))
        return ranked[:limit]

    def pages(self, limit: int, size: int = 200) -> Iterator[Page]:
        """Yield the most frequent pairs, grouped by query.

        Args:
            limit: number of pairs.
            size: largest number of products of a page; a query with more gives several pages.

        Yields:
            Locale, query and product ids.
        """
        products: dict[tuple[str, str], list[str]] = {}
        for (locale, query, product), _ in self.most(limit):
            products.setdefault((locale, query), []).append(product)
        for (locale, query), ids in products.items():
            for start in range(0, len(ids), size):
                yield locale, query, ids[start : start + size]

    def fade(self) -> None:
        """Halve all counts, so that pairs that are no longer asked for lose their place."""
        with self._lock:
            self._counts = {pair: count // 2 for pair, count in self._counts.items() if count > 1}
            self.total, self.lost = self.total // 2, self.lost // 2

    def save(self, path: Path) -> None:
        """Write the counts to a JSON file, under a temporary name first, so that the file is complete or unchanged."""
        pairs = [[*pair, count] for pair, count in self.most(2 * self.capacity)]
        content = {"form": _FORM, "total": self.total, "lost": self.lost, "pairs": pairs}
        write_atomically(path, json.dumps(content).encode())

    @classmethod
    def load(cls, path: Path, capacity: int) -> Frequent:
        """Return the counts of a file of :meth:`save`; empty ones when the file is absent or damaged.

        Args:
            path: the file.
            capacity: as in :class:`Frequent`; it may differ from that of the saved counts.

        Returns:
            The counts.
        """
        counter = cls(capacity)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["form"] != _FORM:
                return counter
            pairs = {(str(a), str(b), str(c)): int(count) for a, b, c, count in content["pairs"]}
            total, lost = int(content["total"]), int(content["lost"])
        except (OSError, ValueError, KeyError, TypeError):
            return counter
        counter._counts, counter.total, counter.lost = pairs, total, lost
        if len(pairs) > 2 * counter.capacity:
            counter._prune()
        return counter

    def _prune(self) -> None:
        taken = sorted(self._counts.values(), reverse=True)[self.capacity]
        self._counts = {pair: count - taken for pair, count in self._counts.items() if count > taken}
        self.lost += taken


def fill(
    cache: LabelCache,
    pages: Iterable[Page],
    version: int,
    text_versions: Callable[[str, Sequence[str]], tuple[list[str], np.ndarray]],
    score: Callable[[str, str, Sequence[str]], tuple[np.ndarray, np.ndarray]],
    going_on: Callable[[], bool] = lambda: True,
) -> int:
    """Put the labels of pages into the cache, where they are missing.

    Args:
        cache: the label cache.
        pages: locale, query and product ids each, see :meth:`Frequent.pages`.
        version: number of the champion that will serve, `Card.number`.
        text_versions: called with a locale and product ids; returns the ids that the catalogue knows, and their text
            versions, uint64 (n,).
        score: called with a locale, a query and n product ids; returns the whole ensemble's probabilities, float32
            (n, 4), and labels, int (n,).
        going_on: called before each page; filling ends when it returns False.

    Returns:
        How many pairs were scored.
    """
    scored = 0
    for locale, query, asked in pages:
        if not going_on():
            break
        known, versions = text_versions(locale, asked)
        if not known:
            continue
        keys = pair_keys(version, locale, query, known, versions)
        missing = np.flatnonzero(~cache.get(keys)[0])
        if len(missing):
            answers = score(locale, query, [known[row] for row in missing])
            cache.put(np.ascontiguousarray(keys[missing]), entries_of(*answers))
            scored += len(missing)
    return scored
