"""TF-IDF keywords: a long field shortened to the words that distinguish its product from others."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from esci_tournament.tasks.families.language_model.spec import TextField
from esci_tournament.tasks.families.language_model.text import clean

# One run of one script is a word, as in the tokenizer: Japanese has no spaces.
_WORD = re.compile(r"[一-鿿々]+|[゠-ヿ]+|[぀-ゟ]+|[^\W_一-鿿々゠-ヿ぀-ゟ]+")
_SLOTS = 2**20
_SAMPLE = 200_000
_FILE = "keywords.npy"


@dataclass(frozen=True)
class Keywords:
    """Document frequencies of the words of a catalogue.

    Attributes:
        counts: uint32 (2**20 + 1,), in how many products each word stands. A word's slot is its CRC-32 modulo 2**20, so
            that the table is of one size (4 MiB) for any catalogue; the last entry is the number of products. Two words
            that share a slot count as one, which makes rare words look a little less rare.
    """

    counts: np.ndarray

    @classmethod
    def of(cls, products: pd.DataFrame, fields: Iterable[TextField]) -> Keywords:
        """Count the words of the fields of a catalogue, at most 200,000 products of it, evenly spread.

        Args:
            products: a text column for each of `fields`; what is no string is skipped.
            fields: the fields whose words are counted.

        Returns:
            The frequencies.
        """
        sample = products.iloc[:: max(1, -(-len(products) // _SAMPLE))]
        counts = np.zeros(_SLOTS + 1, dtype=np.uint32)
        for texts in zip(*(sample[name].to_numpy() for name in fields), strict=True):
            slots = {_slot(word) for text in texts if isinstance(text, str) for word in _words(clean(text))}
            counts[list(slots)] += 1
        counts[_SLOTS] = len(sample)
        return cls(counts)

    def shorten(self, text: str, count: int) -> str:
        """Return the words of a text with the highest TF-IDF, each once, in the order of the text.

        The weight of a word is tf * (ln((1 + n) / (1 + df)) + 1), scikit-learn's smooth form; of equal weights the
        earlier word wins. A text with no more words than wanted is returned unchanged.

        Args:
            text: the cleaned text of a field.
            count: words to keep.

        Returns:
            The words in lower case, joined by spaces.

        Example:
            >>> products = pd.DataFrame({"title": ["Red lamp", "Red desk", "Red chair"]})
            >>> Keywords.of(products, ["title"]).shorten("Red chair with lamp", 3)
            'chair with lamp'
        """
        words = _words(text)
        if len(words) <= count:
            return text
        frequency = Counter(words)
        distinct = list(frequency)
        found = self.counts[[_slot(word) for word in distinct]]
        weights = np.asarray(list(frequency.values())) * (np.log((1 + self.counts[_SLOTS]) / (1.0 + found)) + 1)
        best = np.sort(np.argsort(-weights, kind="stable")[:count])
        return " ".join(distinct[place] for place in best)

    def save(self, folder: Path) -> None:
        """Write the table as keywords.npy into a folder."""
        np.save(folder / _FILE, self.counts)

    @classmethod
    def load(cls, folder: Path) -> Keywords:
        """Memory-map what :meth:`save` wrote."""
        return cls(np.load(folder / _FILE, mmap_mode="r", allow_pickle=False))


def shortened(
    fields: Mapping[str, list[str]], wanted: Mapping[TextField, int], keywords: Keywords | None
) -> dict[str, list[str]]:
    """Return the fields, those in `wanted` shortened to their keywords.

    Args:
        fields: for each field, the text of each product.
        wanted: for each field to shorten, the number of keywords.
        keywords: document frequencies of the catalogue; None shortens nothing.

    Returns:
        The same fields in the same order.
    """
    limits = {str(name): count for name, count in wanted.items()}
    return {
        name: [keywords.shorten(text, limits[name]) for text in texts] if keywords and name in limits else texts
        for name, texts in fields.items()
    }


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _slot(word: str) -> int:
    return zlib.crc32(word.encode("utf-8", "surrogatepass")) % _SLOTS
