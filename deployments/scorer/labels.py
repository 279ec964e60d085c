"""The label cache as the service uses it: look-ups in the event loop, writes in a thread."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Sequence

import numpy as np

from esci_tournament.deployments.scorer.cache import EARLY, LabelCache, entries_of, pair_keys, probabilities_of, rounded
from esci_tournament.deployments.scorer.metrics import ScorerMetrics

_log = logging.getLogger("scorer")
_WAITING = 2000  # pages that wait to be written; more are not kept


_Page = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]  # keys, probabilities, labels, early


class Labels:
    """The label cache as the service uses it.

    A look-up in a local cache is made in the event loop, because it takes less time than handing it to a thread. A
    look-up over the network is made in a thread. Writes are queued for a thread of their own.

    Args:
        cache: the cache; None for no cache, in which nothing is ever found.
        metrics: where failures are counted.
    """

    def __init__(self, cache: LabelCache | None, metrics: ScorerMetrics) -> None:
        self.cache, self._metrics = cache, metrics
        self._writes: queue.Queue[_Page | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._write, daemon=True, name="label cache")
        if cache is not None:
            self._thread.start()

    def keys(
        self, version: int, locale: str, query: str, ids: Sequence[str], versions: np.ndarray | Sequence[int]
    ) -> np.ndarray:
        """Return the cache key of each pair of a page.

        Args:
            version: number of the champion, `Card.number`.
            locale: locale of the page.
            query: query of the page, as it was sent.
            ids: n product ids, "" for a product without one.
            versions: text version of each product, n whole numbers.

        Returns:
            uint8 (n, 16), see :func:`~esci_tournament.deployments.scorer.cache.pair_keys`; zeros without a cache.
        """
        if self.cache is None:
            return np.zeros((len(ids), 16), dtype=np.uint8)
        return pair_keys(version, locale, query, ids, versions)

    async def get(self, keys: np.ndarray, labels_only: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Look up pairs. When the cache fails, nothing is found and the failure is counted.

        Args:
            keys: uint8 (n, 16), as :meth:`keys` returns them.
            labels_only: whether labels are enough. If not, entries of early exits count as not found, because their
                probabilities are not those of the whole ensemble.

        Returns:
            Which pairs are found, bool (n,); their labels, int64 (n,), indices into E, S, C, I; and their
            probabilities, float64 (n, 4). Rows of pairs that were not found are meaningless.
        """
        if self.cache is None:
            return _nothing(len(keys))
        try:
            if self.cache.remote:
                found, entries = await asyncio.get_running_loop().run_in_executor(None, self.cache.get, keys)
            else:
                found, entries = self.cache.get(keys)
        except Exception:  # whatever is wrong with it, pages are answered without it
            _log.exception("the label cache cannot be read; everything is scored")
            self._metrics.cache_failures.inc()
            return _nothing(len(keys))
        if not labels_only:
            found = found & (entries["flags"] & EARLY == 0)
        return found, entries["label"].astype(np.int64), probabilities_of(entries)

    def put(
        self, keys: np.ndarray, probabilities: np.ndarray, labels: np.ndarray, early: np.ndarray | None = None
    ) -> None:
        """Queue the labels of pairs to be written. When too many pages wait, they are dropped.

        Args:
            keys: uint8 (n, 16), as :meth:`keys` returns them.
            probabilities: float32 (n, 4).
            labels: int (n,), index into E, S, C, I.
            early: bool (n,), which pairs were labelled by an early exit; None for none.
        """
        if self.cache is None:
            return
        try:
            self._writes.put_nowait((keys, probabilities, labels, early))
        except queue.Full:
            self._metrics.cache_failures.inc()

    def rounded(self, probabilities: np.ndarray) -> np.ndarray:
        """Round probabilities as the cache does, so that a pair's answer is the same when it comes from the cache.

        Args:
            probabilities: float (n, 4).

        Returns:
            float64 (n, 4).
        """
        return rounded(probabilities)

    def flush(self) -> None:
        """Block until everything that is queued is written."""
        self._writes.join()

    def close(self) -> None:
        """Write what is queued, for at most 30 s, and close the cache."""
        if self.cache is not None:
            self._writes.put(None)
            self._thread.join(30)
            self.cache.close()

    def _write(self) -> None:
        while True:
            waiting = [self._writes.get()]
            while not self._writes.empty():
                waiting.append(self._writes.get_nowait())
            pages = [page for page in waiting if page is not None]
            try:
                if pages and self.cache is not None:
                    entries = [entries_of(probabilities, labels, early) for _, probabilities, labels, early in pages]
                    self.cache.put(np.concatenate([keys for keys, *_ in pages]), np.concatenate(entries))
            except Exception:
                _log.exception("the label cache cannot be written; what it should have kept is scored again")
                self._metrics.cache_failures.inc()
            finally:
                for _ in waiting:
                    self._writes.task_done()
            if len(pages) < len(waiting):
                return


def _nothing(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.zeros(number, dtype=bool), np.zeros(number, dtype=np.int64), np.zeros((number, 4))
