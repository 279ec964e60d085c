"""The label cache: labels of pairs seen before, under what they follow from. Embedded by default, Redis for several."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from esci_tournament.registry.settings import Settings
from esci_tournament.tasks.data.dataset import normalise_query

EARLY = 1  # flag: an early exit, whose label stands and whose probabilities are those of the members that were asked
ENTRY = np.dtype([("label", "u1"), ("flags", "u1"), ("probabilities", "<u2", (4,))])
KEY_BYTES = 16
_ONE = 65535  # the probability 1


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
    from esci_tournament.deployments.scorer.file_cache import FileCache

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
