"""Define the data set that every stage works on: pairs, products, events, edges and query keys."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from esci_tournament.registry.labels import LOCALES as LOCALES

PAIR_COLUMNS = ("example_id", "query_id", "query", "query_key", "product_id", "product", "locale", "label", "split")
PRODUCT_COLUMNS = ("product_id", "locale", "title", "brand", "color", "bullets", "description")
EVENT_COLUMNS = ("time", "client", "session", "query", "query_key", "locale", "product", "action")
EDGE_COLUMNS = ("time", "query", "query_key", "locale", "source", "product", "relation", "weight")
ACTIONS: tuple[str, ...] = ("impression", "click", "add", "purchase")


@dataclass(frozen=True)
class LeftOut:
    """Rows of a log that were left out when it was read, for one reason.

    Attributes:
        file: Name of the file.
        reason: A key of :data:`esci_tournament.tasks.data.logs.REASONS`.
        count: How many rows.
        first_rows: The first of them, at most five, in words.
        rows: Rows of the file; 0 in data that an earlier release has loaded.
    """

    file: str
    reason: str
    count: int
    first_rows: tuple[str, ...]
    rows: int = 0


@dataclass(frozen=True)
class Dataset:
    """One version of the data.

    Attributes:
        pairs: One row per judged pair. `example_id` int64 unique, `query_id` int64, `query` str, `query_key` uint64
            (see :func:`query_key`), `product_id` str, `product` int32 (row in `products`), `locale` category,
            `label` int8 (index into `registry.labels.LABELS`), `split` category (train, test). RangeIndex, file order.
        products: One row per product of a locale: `product_id`, `locale` and the five text columns, missing text as
            "". RangeIndex. Text is joined late, by `pairs["product"]`, a batch at a time.
        events: One row per behaviour event, or None: `time` datetime64, `client`, `session` and `query` str,
            `query_key` uint64, `locale`, `product` int32 (row in `products`), `action` one of :data:`ACTIONS`.
        version: SHA-256 (hex) of the content, independent of file times, compression and row-group sizes.
        source: The folder it was read from.
        edges: One row per edge of the plain edge table, or None: `time` datetime64, `query` str and `query_key` uint64
            ("" and 0 between products), `locale`, `source` int32 (row in `products`, -1 for a query's edge), `product`
            int32, `relation` category, `weight` float64 (how often; counts like so many events).
        left_out: What the logs hold and `events` and `edges` do not, by file and reason.
    """

    pairs: pd.DataFrame
    products: pd.DataFrame
    events: pd.DataFrame | None
    version: str
    source: Path
    edges: pd.DataFrame | None = None
    left_out: tuple[LeftOut, ...] = ()


def normalise_query(text: str) -> str:
    """Return the query as it is compared: NFKC, case-folded, white space collapsed.

    Example:
        >>> normalise_query("  ＵＳＢ   Cable ")
        'usb cable'
    """
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def query_key(query: str, locale: str, salt: str = "") -> int:
    """Return the stable 64-bit identity of a query in a locale (BLAKE2b of locale and normalised text).

    It depends on nothing else, so a query keeps its key, and so its side of every split, in each data version.

    Args:
        query: The query as typed.
        locale: Its locale.
        salt: Gives other keys for other uses; "" for the keys of a data set.

    Returns:
        An integer in [0, 2**64).

    Example:
        >>> query_key("USB  cable", "us") == query_key("usb cable", "us")
        True
        >>> query_key("usb cable", "us") == query_key("usb cable", "es")
        False
    """
    content = f"{salt}\x1f{locale}\x1f{normalise_query(query)}".encode()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def query_keys(queries: Iterable[str], locales: Iterable[str], salt: str = "") -> np.ndarray:
    """Return :func:`query_key` of many queries; each distinct one is hashed once.

    Args:
        queries: The queries, n of them.
        locales: The locale of each, n of them.
        salt: As for :func:`query_key`.

    Returns:
        uint64 (n,), in the order of the queries.
    """
    known: dict[tuple[str, str], int] = {}
    keys = []
    for pair in zip(queries, locales, strict=True):
        key = known.get(pair)
        if key is None:
            key = known[pair] = query_key(*pair, salt=salt)
        keys.append(key)
    return np.asarray(keys, dtype=np.uint64)


def salted_uniform(keys: np.ndarray, salt: str) -> np.ndarray:
    """Return a stable uniform number in [0, 1) for each query key, another one for each salt.

    Equal keys get equal numbers, so `salted_uniform(keys, salt) < share` always chooses the same queries.

    Args:
        keys: uint64 (n,).
        salt: What the numbers are for.

    Returns:
        float64 (n,), in the order of the keys.

    Example:
        >>> salted_uniform(np.array([7, 8, 7], dtype=np.uint64), "blend").round(3).tolist()
        [0.051, 0.653, 0.051]
    """
    unique, inverse = np.unique(np.asarray(keys, dtype=np.uint64), return_inverse=True)
    prefix = salt.encode() + b"\x1f"
    digests = (hashlib.blake2b(prefix + key.tobytes(), digest_size=8).digest() for key in unique)
    values = np.fromiter((int.from_bytes(digest, "little") for digest in digests), np.uint64, count=len(unique))
    return (values / 2.0**64)[inverse]
