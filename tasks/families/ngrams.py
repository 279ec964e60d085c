"""Hashed words and character n-grams of many texts at once, in numpy: the same in every language and process."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from scipy import sparse

BUCKETS = 1 << 20
WORDS = BUCKETS // 2  # buckets below are words, buckets from here on are character n-grams
_SEPARATORS = re.compile(r"[\W_]+")
_SPACE, _END = 32, 10
FIRST_IDEOGRAPHIC = 0x2E80  # scripts from here on write words without spaces and say much in two characters


def normalise(text: str) -> str:
    """Return the text as n-grams see it: NFKC, case-folded, everything but letters and digits a single space.

    Example:
        >>> normalise("Wi-Fi  CAFÉ (2 pcs.)")
        'wi fi café 2 pcs'
    """
    return _SEPARATORS.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def count(texts: Sequence[str], *, normalised: bool = False) -> sparse.csr_matrix:
    """Count the hashed terms of each text.

    Terms are words, character trigrams inside a word with its borders, and character pairs of scripts without spaces.

    Args:
        texts: texts in any language.
        normalised: Whether :func:`normalise` made them; else they are normalised here.

    Returns:
        float32 CSR (len(texts), BUCKETS), columns sorted; words in the first half, n-grams in the second.

    Example:
        >>> count(["red lamp", "lamp"]).sum(axis=1).A1.tolist()  # words and trigrams: 2 + 7 and 1 + 4
        [9.0, 5.0]
    """
    if not len(texts):
        return sparse.csr_matrix((0, BUCKETS), dtype=np.float32)
    flat = "\n".join(f" {text if normalised else normalise(text)} " for text in texts)
    codes = np.frombuffer(flat.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    document = np.cumsum(codes == _END, dtype=np.int64)
    keys = np.concatenate([_words(codes, document), _trigrams(codes, document), _pairs(codes, document)])
    keys, counts = np.unique(keys, return_counts=True)
    pointers = np.searchsorted(keys, np.arange(len(texts) + 1, dtype=np.int64) * BUCKETS)
    columns = (keys % BUCKETS).astype(np.int32)
    return sparse.csr_matrix((counts.astype(np.float32), columns, pointers), shape=(len(texts), BUCKETS))


def _words(codes: np.ndarray, document: np.ndarray) -> np.ndarray:
    letter = (codes != _SPACE) & (codes != _END)
    edges = np.diff(np.concatenate([[0], letter.view(np.int8), [0]]))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    if not len(starts):
        return np.empty(0, dtype=np.int64)
    # A word's hash is a sum over its characters, each mixed with its place: order counts, and reduceat can add it up.
    lengths = ends - starts
    index = np.flatnonzero(letter)
    offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    place = (np.arange(len(index)) - np.repeat(offsets, lengths)).astype(np.uint64)
    mixed = _mix(codes[index] + place * np.uint64(0x9E3779B97F4A7C15))
    bucket = _mix(np.add.reduceat(mixed, offsets)) % np.uint64(WORDS)
    return document[starts] * BUCKETS + bucket.astype(np.int64)


def _trigrams(codes: np.ndarray, document: np.ndarray) -> np.ndarray:
    first, middle, last = codes[:-2], codes[1:-1], codes[2:]
    valid = (middle != _SPACE) & (first != _END) & (middle != _END) & (last != _END)
    value = (first << np.uint64(42)) ^ (middle << np.uint64(21)) ^ last
    return _grams(value[valid], document[:-2][valid])


def _pairs(codes: np.ndarray, document: np.ndarray) -> np.ndarray:
    first, last = codes[:-1], codes[1:]
    valid = (first >= FIRST_IDEOGRAPHIC) & (last >= FIRST_IDEOGRAPHIC)
    value = (first << np.uint64(21)) ^ last ^ np.uint64(1 << 63)
    return _grams(value[valid], document[:-1][valid])


def _grams(value: np.ndarray, document: np.ndarray) -> np.ndarray:
    bucket = _mix(value) % np.uint64(BUCKETS - WORDS) + np.uint64(WORDS)
    return document * BUCKETS + bucket.astype(np.int64)


def _mix(value: np.ndarray) -> np.ndarray:
    """Spread 64-bit numbers evenly (the finaliser of splitmix64, Steele, Lea and Flood, 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
