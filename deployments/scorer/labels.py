"""Labels of pairs seen before: what the service asks of the label cache, and a thread that writes behind it."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Sequence

import numpy as np

from esci_tournament.deployments.scorer.cache import EARLY, LabelCache, entries_of, pair_keys, probabilities_of
from esci_tournament.deployments.scorer.metrics import ScorerMetrics

_log = logging.getLogger("scorer")
_WAITING = 2000  # pages that wait to be written; more are not kept


class Labels:
    """The label cache as the service uses it. Without a cache nothing is ever found.

    A look-up in a local cache is done where it is asked for: it takes less than handing it to a thread would. One that
    goes over the network is handed over. Writes are always behind.
    """

    def __init__(self, cache: LabelCache | None, metrics: ScorerMetrics) -> None:
        self.cache, self._metrics = cache, metrics
        self._writes: queue.Queue[tuple[np.ndarray, np.ndarray, np.ndarray | None] | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._write, daemon=True, name="label cache")
        if cache is not None:
            self._thread.start()

    def keys(self, version: int, locale: str, query: str, ids: Sequence[str], versions: np.ndarray) -> np.ndarray:
        """Return the key of each pair, uint8 (n, 16)."""
        if self.cache is None:
            return np.zeros((len(ids), 16), dtype=np.uint8)
        return pair_keys(version, locale, query, ids, versions)

    async def get(self, keys: np.ndarray, labels_only: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return which pairs are found, bool (n,), their labels, int (n,), and probabilities, float64 (n, 4).

        An entry of an early exit has a label only: where probabilities are wanted it counts as not found.
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

    def put(self, keys: np.ndarray, probabilities: np.ndarray, early: np.ndarray | None = None) -> None:
        """Keep the labels of some pairs, soon. When too many wait they are not kept.

        Args:
            keys: uint8 (n, 16). probabilities: float32 (n, 4). early: bool (n,), pairs that exited early.
        """
        if self.cache is None:
            return
        try:
            self._writes.put_nowait((keys, probabilities, early))
        except queue.Full:
            self._metrics.cache_failures.inc()

    def rounded(self, probabilities: np.ndarray) -> np.ndarray:
        """Return probabilities as the cache would give them back, so that a pair's answer is the same both times."""
        return probabilities_of(entries_of(probabilities))

    def flush(self) -> None:
        """Wait until everything that waits is written."""
        self._writes.join()

    def close(self) -> None:
        """Write what waits, and end."""
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
                    entries = [entries_of(probabilities, early) for _, probabilities, early in pages]
                    self.cache.put(np.concatenate([keys for keys, _, _ in pages]), np.concatenate(entries))
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
