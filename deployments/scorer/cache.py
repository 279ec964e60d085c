"""The label cache: labels of pairs seen before, under what they follow from. Embedded by default, Redis for several."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from filelock import FileLock, Timeout

from esci_tournament.deployments.scorer.table import BUCKET_SLOTS, HEADER_BYTES, SLOT_BYTES, DamagedTable, Table
from esci_tournament.registry.errors import UsageError
from esci_tournament.registry.settings import Settings
from esci_tournament.tasks.data.dataset import normalise_query

_log = logging.getLogger("scorer")

EARLY = 1  # flag: an early exit, whose label stands and whose probabilities are those of the members that were asked
ENTRY = np.dtype([("label", "u1"), ("flags", "u1"), ("probabilities", "<u2", (4,))])
KEY_BYTES = 16
_ENTRY_WORDS = ENTRY.itemsize // 2
_ONE = 65535  # the probability 1

_FILE, _LOCK = "labels.bin", "labels.lock"
_FIRST_BUCKETS = 2**16  # 16 MiB
_FULL, _GROWTH = 0.9, 1.5  # share of slots in use from which a table grows, and how much: 36 to 53 bytes a pair
_LOOKS = 32  # how full a table is is looked at whenever this part of its slots was put


@dataclass(frozen=True)
class CacheStats:
    """What a cache says of itself.

    Attributes:
        hits, misses: look-ups of this process. entries: pairs kept, about; None when unknown (Redis).
        bytes: on disk. evicted: entries that had to go. rebuilt: damaged files that this process replaced.
        failures: look-ups and writes that could not be made. available: whether the next one will be tried.
    """

    hits: int = 0
    misses: int = 0
    entries: int | None = None
    bytes: int | None = None
    evicted: int = 0
    rebuilt: int = 0
    failures: int = 0
    available: bool = True


class LabelCache(Protocol):
    """What the scorer needs of a label cache. `remote`: whether a look-up goes over the network."""

    remote: bool

    def get(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which keys are found, bool (n,), and their entries, :data:`ENTRY` (n,), zero where not found.

        Args:
            keys: uint8 (n, 16), see :func:`pair_keys`.
        """

    def put(self, keys: np.ndarray, entries: np.ndarray) -> None:
        """Keep entries, :data:`ENTRY` (n,), under keys, uint8 (n, 16)."""

    def stats(self) -> CacheStats:
        """Return what the cache says of itself."""

    def close(self) -> None:
        """Write what is not written yet, and end."""


def open_cache(settings: Settings) -> LabelCache:
    """Return the label cache that the settings name: Redis, or a file under the home.

    Raises:
        StoreError: if there is no room on the disk.
        UsageError: if the address of Redis is none.
    """
    if settings.cache_redis_url:
        from esci_tournament.deployments.scorer.redis_cache import RedisCache

        return RedisCache(
            settings.cache_redis_url.get_secret_value(),
            settings.cache_redis_timeout_ms / 1000,
            settings.cache_redis_days * 86_400,
        )
    return FileCache(settings.home / "cache", settings.cache_max_mib)


def pair_keys(
    version: int, locale: str, query: str, product_ids: Sequence[str], text_versions: np.ndarray | Sequence[int]
) -> np.ndarray:
    """Return the key of each pair, uint8 (n, 16): BLAKE2b of all that its label follows from.

    Not a faster hash: products come with requests, and nobody shall be able to make one that takes another's place.

    Args:
        version: of the champion. locale, query: of the page; the query is normalised.
        product_ids: n ids. text_versions: n whole numbers, which change with the products' texts.
    """
    text = normalise_query(query).encode("utf-8", "surrogatepass")
    page = hashlib.blake2b(b"%d\x1f%s\x1f%d\x1f%s" % (version, locale.encode(), len(text), text), digest_size=KEY_BYTES)
    digests = []
    numbers = text_versions.tolist() if isinstance(text_versions, np.ndarray) else text_versions
    for product, number in zip(product_ids, numbers, strict=True):
        pair = page.copy()
        pair.update(b"\x1f%d\x1f%s" % (number, product.encode("utf-8", "surrogatepass")))
        digests.append(pair.digest())
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, KEY_BYTES)


def entries_of(probabilities: np.ndarray, early: np.ndarray | None = None) -> np.ndarray:
    """Return entries, :data:`ENTRY` (n,), of probabilities, float (n, 4).

    Args:
        early: bool (n,), pairs that were labelled by an early exit.
    """
    entries = np.zeros(len(probabilities), dtype=ENTRY)
    if len(probabilities):
        entries["label"] = probabilities.argmax(axis=1)
        entries["probabilities"] = np.rint(np.clip(probabilities, 0, 1) * _ONE)
    if early is not None:
        entries["flags"][early] = EARLY
    return entries


def probabilities_of(entries: np.ndarray) -> np.ndarray:
    """Return the probabilities of entries, float64 (n, 4), within 1 / 131,070 of what was put."""
    return entries["probabilities"].astype(np.float64) / _ONE


class FileCache:
    """A label cache in one file, which several processes of a machine may share.

    It starts at 16 MiB and grows by half when it is nine tenths full, up to its limit; from then on the entries that
    were not used for the longest time make room. A damaged file is noticed when it is opened, and made anew; a damaged
    entry is noticed when it is looked up, and not found.

    Args:
        folder: where its file stands. max_mib: size of the file at most, MiB.
    """

    remote = False

    def __init__(self, folder: Path, max_mib: float) -> None:
        self._path, self._lock = folder / _FILE, FileLock(folder / _LOCK)
        self._most = int((max_mib * 2**20 - HEADER_BYTES) // (BUCKET_SLOTS * SLOT_BYTES))
        if self._most < 1:
            raise UsageError(f"cache_max_mib is {max_mib}; one bucket of a label cache takes more, set 4 or above")
        self._hits = self._misses = self._rebuilt = self._failures = 0
        self._writing = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        self._table = self._open()

    def get(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        table = self._current()
        entries = np.zeros(len(keys), dtype=ENTRY)
        found, hits = table.get(_words(keys), entries.view(np.uint16).reshape(-1, _ENTRY_WORDS))
        self._hits += hits
        self._misses += len(keys) - hits
        return found, entries

    def put(self, keys: np.ndarray, entries: np.ndarray) -> None:
        if not len(keys):
            return
        words, content = _words(keys), np.ascontiguousarray(entries).view(np.uint16).reshape(-1, _ENTRY_WORDS)
        with self._writing:
            start = 0
            while start < len(words):
                table = self._current()
                part = slice(start, start + max(len(table.slots) // _LOOKS, 1))
                table.put(words[part], content[part])
                start = part.stop
                if table.used > _FULL * len(table.slots) and table.buckets < self._most:
                    self._grow(table)

    def stats(self) -> CacheStats:
        table = self._table
        return CacheStats(
            self._hits, self._misses, table.used, table.size, table.evicted, self._rebuilt, self._failures
        )

    def close(self) -> None:
        with self._writing:
            self._table.flush()

    def _current(self) -> Table:
        if self._table.superseded:
            self._table = self._open()
        return self._table

    def _open(self) -> Table:
        with self._lock:
            try:
                table = Table.open(self._path)
            except FileNotFoundError:
                return Table.create(self._path, min(_FIRST_BUCKETS, self._most))
            except (DamagedTable, OSError, ValueError) as error:
                _log.warning("%s", error)
                self._rebuilt += 1
                return Table.create(self._path, min(_FIRST_BUCKETS, self._most))
            return self._resized(table, self._most) if table.buckets > self._most else table

    def _grow(self, table: Table) -> None:
        try:
            with self._lock.acquire(timeout=0):
                if not table.superseded:
                    self._table = self._resized(table, min(int(_GROWTH * table.buckets), self._most))
        except Timeout:
            return  # another process is at it
        except Exception as error:
            # No room for a larger one: what stands goes on, and what was not used for the longest time goes
            self._failures += 1
            self._most = table.buckets
            _log.warning("the label cache stays at %.0f MiB: %s", table.size / 2**20, error)

    def _resized(self, table: Table, buckets: int) -> Table:
        """Return a table of another size with the same entries, in the same place."""
        fresh = Table.create(self._path.with_name(f"{_FILE}.next"), buckets)
        fresh.absorb(table)
        fresh.path.replace(self._path)
        fresh.path = self._path
        table.supersede()
        return fresh


def _words(keys: np.ndarray) -> np.ndarray:
    """Return keys, uint8 (n, 16), as uint64 (n, 2)."""
    return np.ascontiguousarray(keys).view(np.uint64).reshape(-1, 2)
