"""Keys by which a saved model recognises products, and their look-up."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np


def identities(product_ids: Iterable[str], locales: Iterable[str], texts: Iterable[str]) -> np.ndarray:
    """Return a key of each product: BLAKE2b of id, locale and the text that the model reads.

    A product whose text has changed gets another key: what was computed ahead no longer describes it.

    Args:
        product_ids: id of each product.
        locales: locale of each product, such as "us".
        texts: the text of each product that the model reads; "" where it does not depend on one.

    Returns:
        uint64 (n,), in the order of the arguments.

    Example:
        >>> keys = identities(["B1", "B1"], ["us", "es"], ["desk lamp", "desk lamp"])
        >>> len(keys), keys.dtype, bool(keys[0] == keys[1])
        (2, dtype('uint64'), False)
    """
    digests = b"".join(
        hashlib.blake2b("\x1f".join(parts).encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for parts in zip(product_ids, locales, texts, strict=True)
    )
    return np.frombuffer(digests, dtype="<u8")


def find(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return where keys stand among those that are known.

    Args:
        keys: uint64 (n,), ascending.
        wanted: uint64 (m,).

    Returns:
        int64 (m,), place in `keys`, -1 for one that is not there.

    Example:
        >>> find(np.array([3, 7], dtype=np.uint64), np.array([7, 5], dtype=np.uint64)).tolist()
        [1, -1]
    """
    if not len(keys):
        return np.full(len(wanted), -1, dtype=np.int64)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, place, -1)
