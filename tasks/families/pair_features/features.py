"""The features of a pair. None needs another pair, so answers may be cached, and none needs a label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from esci_tournament.tasks.data.dataset import LOCALES
from esci_tournament.tasks.families.lexicon import OVERLAPS, shared
from esci_tournament.tasks.families.ngrams import FIRST_IDEOGRAPHIC, normalise
from esci_tournament.tasks.families.pair_features.popularity import Popularity
from esci_tournament.tasks.families.pair_features.vocabulary import FIELD, TITLE, Vocabulary, bodies, taken

LENGTHS = ("locale", "query_words", "query_characters", "title_words", "title_characters", "body_characters",
           "has_brand", "has_color")  # fmt: skip
NAMED = ("query_in_title", "first_word_at", "neighbours_in_title", "brand_named", "brand_words_named",
         "other_brand_named", "color_named", "color_matched", "other_color_named", "numbers_named", "numbers_in_title",
         "numbers_in_body")  # fmt: skip
SHARED = (*(f"{one}_{place}" for place in ("title", "body") for one in OVERLAPS), "title_words_in_query")
_PART = 20_000  # pairs whose products are read at once
_FIRST_IDEOGRAPHIC = chr(FIRST_IDEOGRAPHIC)


def names(relations: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the columns that :func:`pair_features` returns.

    Args:
        relations: whose events count as popularity.

    Returns:
        Distinct names.
    """
    counts = [f"{one}_{what}" for one in relations for what in ("events", "queries")]
    return (*LENGTHS, *SHARED, *NAMED, *counts)


def pair_features(
    pairs: pd.DataFrame,
    products: pd.DataFrame,
    vocabulary: Vocabulary,
    popularity: Popularity,
    own: np.ndarray | None = None,
) -> np.ndarray:
    """Return the features of each pair.

    Args:
        pairs: columns query, locale and product (row in `products`).
        products: columns of `Dataset.products`, text without missing values.
        vocabulary: of the fit's catalogue.
        popularity: counts of products.
        own: float32 (n, counts), to be left out of the counts, see
            :func:`esci_tournament.tasks.families.pair_features.popularity.of_own_query`; None for nothing.

    Returns:
        float64 (n, features), finite, columns as :func:`names`.
    """
    parts = [np.zeros((0, len(names(())) + popularity.counts.shape[1]))]
    for start in range(0, len(pairs), _PART):
        part = slice(start, start + _PART)
        left_out = None if own is None else own[part]
        parts.append(_features(pairs.iloc[part], products, vocabulary, popularity, left_out))
    return np.concatenate(parts)


def _features(
    pairs: pd.DataFrame, products: pd.DataFrame, vocabulary: Vocabulary, popularity: Popularity, own: np.ndarray | None
) -> np.ndarray:
    rows, product_rows = np.unique(pairs["product"].to_numpy(dtype=np.int64), return_inverse=True)
    codes, distinct = pd.factorize(pairs["query"].to_numpy(dtype=object))
    queries = [_Query.of(text, vocabulary) for text in distinct]
    shelf = [
        _Product.of(*fields)
        for fields in zip(*(taken(products, rows, *one) for one in _READ), bodies(products, rows), strict=True)
    ]
    texts, titles, body = (
        vocabulary.lexicon.tfidf(one, normalised=True)
        for one in ([one.text for one in queries], [one.title for one in shelf], [one.body for one in shelf])
    )
    counts = popularity.find(products, rows)[product_rows]
    return np.column_stack(
        [
            _locale_codes(pairs["locale"]),
            np.array([one.lengths for one in queries]).reshape(-1, 2)[codes],
            np.array([one.lengths for one in shelf]).reshape(-1, 5)[product_rows],
            shared(texts, titles, codes, product_rows),
            shared(texts, body, codes, product_rows),
            shared(titles, texts, product_rows, codes)[:, 1],
            _named(queries, shelf, codes, product_rows),
            np.log1p(np.maximum(counts if own is None else counts - own, 0)),
        ]
    ).astype(np.float64)


@dataclass(frozen=True)
class _Query:
    """What is read of a query, once for all its pairs."""

    text: str
    words: tuple[str, ...]
    neighbours: frozenset[tuple[str, str]]
    numbers: frozenset[str]
    brands: tuple[str, ...]
    colors: frozenset[str]

    @classmethod
    def of(cls, query: str, vocabulary: Vocabulary) -> _Query:
        text = normalise(query)
        words = text.split()
        return cls(
            text, tuple(words), frozenset(pairwise(words)), _numbers(words),
            tuple(vocabulary.brands_in(words)), frozenset(vocabulary.colors_in(words)),
        )  # fmt: skip

    @property
    def lengths(self) -> tuple[float, float]:
        return float(len(self.words)), float(len(self.text))


@dataclass(frozen=True)
class _Product:
    """What is read of a product, once for all its pairs."""

    title: str
    places: dict[str, int]
    neighbours: frozenset[tuple[str, str]]
    numbers: frozenset[str]
    body: str
    body_numbers: frozenset[str]
    brand: str
    colors: frozenset[str]

    @classmethod
    def of(cls, title: str, brand: str, color: str, body: str) -> _Product:
        text, described = normalise(title), normalise(body)
        words = text.split()
        places: dict[str, int] = {}
        for place, word in enumerate(words):
            places.setdefault(word, place)
        return cls(
            text, places, frozenset(pairwise(words)), _numbers(words), described,
            _numbers(described.split()), normalise(brand), frozenset(normalise(color).split()),
        )  # fmt: skip

    @property
    def lengths(self) -> tuple[float, ...]:
        return (
            float(len(self.places)), float(len(self.title)), float(len(self.body)), float(bool(self.brand)),
            float(bool(self.colors)),
        )  # fmt: skip


_READ = (("title", TITLE), ("brand", FIELD), ("color", FIELD))


def _locale_codes(locales: pd.Series) -> np.ndarray:
    """Return the position of each locale in `LOCALES`, -1 for another; float64 (n,)."""
    position = {name: float(place) for place, name in enumerate(LOCALES)}
    return np.array([position.get(str(one), -1.0) for one in np.asarray(locales, dtype=object)])


def _named(
    queries: Sequence[_Query], shelf: Sequence[_Product], query_rows: np.ndarray, product_rows: np.ndarray
) -> np.ndarray:
    """Return :data:`NAMED` of each pair, float32 (n, 12)."""
    found = np.empty((len(query_rows), len(NAMED)), dtype=np.float32)
    for number, (query, product) in enumerate(zip(query_rows.tolist(), product_rows.tolist(), strict=True)):
        found[number] = _compare(queries[query], shelf[product])
    return found


def _compare(query: _Query, product: _Product) -> tuple[float, ...]:
    first = min((product.places[word] for word in query.words if word in product.places), default=-1)
    own = bool(product.brand) and _says(query.text, product.brand)
    # "Air" of "Nike Air" is no other brand, and neither is one that the title names too
    others = [one for one in query.brands if one not in product.brand and not _says(product.title, one)]
    brand_words = product.brand.split()
    color_there = query.colors & (product.colors | product.places.keys())
    return (
        float(bool(query.text) and _says(product.title, query.text)),
        float(first),
        _share(query.neighbours, product.neighbours),
        float(own),
        sum(word in query.words for word in brand_words) / len(brand_words) if brand_words else 0.0,
        float(bool(others) and not own),
        float(len(query.colors)),
        float(len(color_there)),
        float(bool(query.colors) and bool(product.colors) and not color_there),
        float(len(query.numbers)),
        _share(query.numbers, product.numbers),
        _share(query.numbers, product.body_numbers),
    )


def _says(text: str, phrase: str) -> bool:
    """Tell whether whole words of a text are a phrase; in scripts without spaces any characters."""
    return phrase in text if any(letter >= _FIRST_IDEOGRAPHIC for letter in phrase) else f" {phrase} " in f" {text} "


def _share(wanted: frozenset, there: frozenset) -> float:
    """Return the share of what is wanted that is there; -1 where nothing is wanted."""
    return len(wanted & there) / len(wanted) if wanted else -1.0


def _numbers(words: list[str]) -> frozenset[str]:
    """Return the words that have a digit, such as 64gb."""
    return frozenset(word for word in words if not word.isalpha() and any(map(str.isdigit, word)))
