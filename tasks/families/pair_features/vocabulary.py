"""What the catalogue of the fit tells about words: their weights, and which of them are brands and colors."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from esci_tournament.tasks.families.lexicon import Lexicon
from esci_tournament.tasks.families.ngrams import normalise
from esci_tournament.tasks.families.product_keys import find

TITLE, FIELD, BODY = 300, 60, 800  # characters of a title, of brand and color, of bullets and of description
LONGEST_BRAND = 4  # words of a brand that is looked for in queries
_MOST_PRODUCTS, _PART = 200_000, 10_000  # products whose words are counted at most, and at once
_BRAND_PRODUCTS = 2  # products that a brand has at least: a single one is often a typing error
_COLOR_PRODUCTS, _COLORS = 3, 2000  # products that a word of a color has at least; such words at most


@dataclass(frozen=True)
class Vocabulary:
    """Words of a catalogue.

    Attributes:
        lexicon: inverse document frequencies over titles, bodies and queries of the fit.
        brands: uint64 (n,), ascending, :func:`phrase_key` of the brands.
        colors: uint64 (m,), ascending, :func:`phrase_key` of single words of the colors.
    """

    lexicon: Lexicon
    brands: np.ndarray
    colors: np.ndarray

    @classmethod
    def fit(cls, queries: Iterable[str], products: pd.DataFrame) -> Self:
        """Read the words of a catalogue.

        Args:
            queries: distinct queries of the fit.
            products: columns of `Dataset.products`.

        Returns:
            The vocabulary; it is the same for any order of queries and products.
        """
        brands = Counter(name for brand in products["brand"] if (name := normalise(brand[:FIELD])))
        shades: Counter[str] = Counter()
        for color in products["color"]:
            shades.update({word for word in normalise(color[:FIELD]).split() if not any(map(str.isdigit, word))})
        named = [name for name, found in brands.items() if found >= _BRAND_PRODUCTS and _short(name)]
        common = sorted((-found, word) for word, found in shades.items() if found >= _COLOR_PRODUCTS)[:_COLORS]
        return cls(Lexicon.of_parts(_corpus(list(queries), products)), _keys(named), _keys(word for _, word in common))

    def brands_in(self, words: list[str]) -> list[str]:
        """Return the brands that stand in a query, longest first.

        Args:
            words: of the normalised query.

        Returns:
            Normalised names.
        """
        phrases = [
            " ".join(words[start : start + length])
            for length in range(min(LONGEST_BRAND, len(words)), 0, -1)
            for start in range(len(words) - length + 1)
        ]
        return _known(phrases, self.brands)

    def colors_in(self, words: list[str]) -> list[str]:
        """Return the words of a normalised query that are colors."""
        return _known(words, self.colors)

    def save(self, folder: Path) -> None:
        """Write the three arrays as npy files into an existing folder."""
        for name, array in (("idf", self.lexicon.idf), ("brands", self.brands), ("colors", self.colors)):
            np.save(folder / f"vocabulary_{name}.npy", array)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return what :meth:`save` wrote.

        Raises:
            OSError: if a file is missing.
            ValueError: if a file is not what :meth:`save` writes.
        """
        idf, brands, colors = (
            np.load(folder / f"vocabulary_{name}.npy", allow_pickle=False) for name in ("idf", "brands", "colors")
        )
        return cls(Lexicon(idf), brands, colors)


def _corpus(queries: list[str], products: pd.DataFrame) -> Iterator[list[str]]:
    """Yield queries, titles and bodies; of a large catalogue those of every second, third or later product."""
    yield queries
    rows = np.arange(0, len(products), -(-len(products) // _MOST_PRODUCTS) or 1)
    for start in range(0, len(rows), _PART):
        part = rows[start : start + _PART]
        yield taken(products, part, "title", TITLE)
        yield bodies(products, part)


def taken(products: pd.DataFrame, rows: np.ndarray, name: str, most: int) -> list[str]:
    """Return the beginning of a text column of some products, `most` characters of each."""
    return [text[:most] for text in np.asarray(products[name].array.take(rows), object)]


def bodies(products: pd.DataFrame, rows: np.ndarray) -> list[str]:
    """Return bullets and description of products, the first 800 characters of each.

    Args:
        products: columns bullets and description, all text without missing values.
        rows: int (n,), rows of `products`.

    Returns:
        One text for each of `rows`.
    """
    parts = (taken(products, rows, name, BODY) for name in ("bullets", "description"))
    return [" ".join(pair) for pair in zip(*parts, strict=True)]


def phrase_key(phrase: str) -> int:
    """Return BLAKE2b of a phrase, 64 bits: vocabularies are compared by it, whatever they are long."""
    return int.from_bytes(hashlib.blake2b(phrase.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _short(name: str) -> bool:
    return len(name) > 1 and name.count(" ") < LONGEST_BRAND


def _keys(phrases: Iterable[str]) -> np.ndarray:
    return np.unique(np.array([phrase_key(one) for one in phrases], dtype=np.uint64))


def _known(phrases: list[str], keys: np.ndarray) -> list[str]:
    places = find(keys, np.array([phrase_key(one) for one in phrases], dtype=np.uint64))
    return [phrase for phrase, place in zip(phrases, places.tolist(), strict=True) if place >= 0]
