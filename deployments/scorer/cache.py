"""The label cache: labels of pairs that were scored before. A file by default, Redis for several scorers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

EARLY = 1  # flag of an early exit: its label is good, its probabilities are those of the members that were asked only
ENTRY = np.dtype([("label", "u1"), ("flags", "u1"), ("probabilities", "<u2", (4,))])
KEY_BYTES = 16
_ONE = 65535  # the probability 1


@dataclass(frozen=True)
class CacheStats:
    """Figures of a label cache.

    Attributes:
        hits: pairs that this process looked up and found.
        misses: pairs that this process looked up and did not find.
        entries: pairs kept, approximately; None when unknown (Redis).
        bytes: size on disk, bytes; None when unknown (Redis).
        evicted: entries that were dropped to make room.
        rebuilt: damaged files that this process replaced.
        failures: look-ups and writes that failed.
        available: whether the next look-up will be tried.
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
    """The interface of a label cache.

    Attributes:
        remote: whether a look-up goes over the network, so that it must not be made in the event loop.
    """

    remote: bool

    def get(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Look up pairs.

        Args:
            keys: uint8 (n, 16), see :func:`pair_keys`.

        Returns:
            Which keys are found, bool (n,), and their entries, :data:`ENTRY` (n,), zero where not found.
        """

    def put(self, keys: np.ndarray, entries: np.ndarray) -> None:
        """Keep entries; a full or unreachable cache may drop them.

        Args:
            keys: uint8 (n, 16), see :func:`pair_keys`.
            entries: :data:`ENTRY` (n,), see :func:`entries_of`.
        """

    def stats(self) -> CacheStats:
        """Return the cache's figures."""

    def close(self) -> None:
        """Write what is not written yet, and release the file or the connection."""


def pair_keys(
    version: int, locale: str, query: str, product_ids: Sequence[str], text_versions: np.ndarray | Sequence[int]
) -> np.ndarray:
    """Return the cache key of each pair of a page: BLAKE2b of everything that its label depends on.

    Pairs with equal keys are the same input of every model. So the query is part of the key as it was sent, as models
    read it in a tournament too: were it normalised here, whoever asked first in another spelling would decide on the
    label of all spellings. The hash is a cryptographic one because requests bring products of their own: nobody must be
    able to make up a product whose key is that of another one.

    Args:
        version: number of the champion, :attr:`Card.number <esci_tournament.deployments.scorer.champion.Card.number>`.
        locale: locale of the page.
        query: query of the page, as it was sent.
        product_ids: n ids, "" for a product without one.
        text_versions: n whole numbers that change with the products' texts, see
            :func:`~esci_tournament.deployments.scorer.catalogue.text_version` and
            :func:`~esci_tournament.deployments.scorer.catalogue.own_version`.

    Returns:
        uint8 (n, 16), in the order of `product_ids`.

    Example:
        >>> keys = pair_keys(3, "us", "Red  LAMP", ["B07XJ8C8F5"], [7])
        >>> keys.shape, bool((keys == pair_keys(3, "us", "red lamp", ["B07XJ8C8F5"], [7])).all())
        ((1, 16), False)
    """
    text = query.encode("utf-8", "surrogatepass")
    page = hashlib.blake2b(b"%d\x1f%s\x1f%d\x1f%s" % (version, locale.encode(), len(text), text), digest_size=KEY_BYTES)
    digests = []
    numbers = text_versions.tolist() if isinstance(text_versions, np.ndarray) else text_versions
    for product, number in zip(product_ids, numbers, strict=True):
        pair = page.copy()
        pair.update(b"\x1f%d\x1f%s" % (number, product.encode("utf-8", "surrogatepass")))
        digests.append(pair.digest())
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, KEY_BYTES)


def entries_of(probabilities: np.ndarray, labels: np.ndarray, early: np.ndarray | None = None) -> np.ndarray:
    """Return probabilities as cache entries, the probabilities rounded to 16 bits.

    Args:
        probabilities: float (n, 4), columns E, S, C, I.
        labels: int (n,), index into E, S, C, I: not always the most probable class.
        early: bool (n,), which pairs were labelled by an early exit; None for none.

    Returns:
        :data:`ENTRY` (n,).

    Example:
        >>> entries = entries_of(np.array([[0.1, 0.7, 0.15, 0.05]]), np.array([1]))
        >>> int(entries["label"][0]), probabilities_of(entries).round(4).tolist()
        (1, [[0.1, 0.7, 0.15, 0.05]])
    """
    entries = np.zeros(len(probabilities), dtype=ENTRY)
    if len(probabilities):
        entries["label"] = labels
        entries["probabilities"] = _steps(probabilities)
    if early is not None:
        entries["flags"][early] = EARLY
    return entries


def rounded(probabilities: np.ndarray) -> np.ndarray:
    """Return probabilities as a cache entry gives them back, float64 (n, 4), of probabilities float (n, 4)."""
    return _steps(probabilities).astype(np.float64) / _ONE


def _steps(probabilities: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(probabilities, 0, 1) * _ONE)


def probabilities_of(entries: np.ndarray) -> np.ndarray:
    """Return the probabilities of cache entries.

    Args:
        entries: :data:`ENTRY` (n,).

    Returns:
        float64 (n, 4), each within 1 / 131,070 of the one that was given to :func:`entries_of`.
    """
    return entries["probabilities"].astype(np.float64) / _ONE
