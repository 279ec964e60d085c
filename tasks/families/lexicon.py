"""Inverse document frequencies of hashed terms, and the overlap of a query and a product that they weight."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from esci_tournament.tasks.families.ngrams import BUCKETS, WORDS, count

OVERLAPS = ("tfidf_cosine", "words_shared", "ngrams_shared")
_NGRAM_SHARE = np.float32(0.5)  # n-grams outnumber words; without this the words hardly count
_ROWS = 20_000


@dataclass(frozen=True)
class Lexicon:
    """Inverse document frequencies, log((1 + n) / (1 + df)) + 1, the smooth form of scikit-learn.

    Attributes:
        idf: float32 (BUCKETS,), one number for each hash bucket.
    """

    idf: np.ndarray

    @classmethod
    def fit(cls, texts: Sequence[str]) -> Lexicon:
        """Count in how many texts each term stands.

        Args:
            texts: the corpus.

        Returns:
            The lexicon of the corpus.
        """
        return cls.of_parts(texts[start : start + _ROWS] for start in range(0, len(texts), _ROWS))

    @classmethod
    def of_parts(cls, parts: Iterable[Sequence[str]]) -> Lexicon:
        """Return the lexicon of a corpus that is read part by part.

        Args:
            parts: texts, some at a time.

        Returns:
            The same as :meth:`fit` returns for all texts at once.
        """
        frequency, read = np.zeros(BUCKETS, dtype=np.int64), 0
        for texts in parts:
            frequency += np.bincount(count(texts).indices, minlength=BUCKETS)
            read += len(texts)
        return cls((np.log((1 + read) / (1 + frequency)) + 1).astype(np.float32))

    def tfidf(self, texts: Sequence[str], *, normalised: bool = False) -> sparse.csr_matrix:
        """Return (1 + ln tf) * idf of each term, halved for character n-grams, with rows scaled to length 1.

        Args:
            texts: texts in any language.
            normalised: Whether `ngrams.normalise` made them.

        Returns:
            float32 CSR (len(texts), BUCKETS); a text without a term has an empty row.
        """
        matrix = count(texts, normalised=normalised)
        weights = (1 + np.log(matrix.data)) * self.idf[matrix.indices]
        weights[matrix.indices >= WORDS] *= _NGRAM_SHARE
        rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
        norms = np.sqrt(np.bincount(rows, weights=weights.astype(np.float64) ** 2, minlength=matrix.shape[0]))
        matrix.data = (weights / norms[rows]).astype(np.float32)
        return matrix

    def overlap(
        self, queries: Sequence[str], products: Sequence[str], query_rows: np.ndarray, product_rows: np.ndarray
    ) -> np.ndarray:
        """Return what the texts of each pair share.

        Args:
            queries: distinct query texts.
            products: distinct product texts.
            query_rows: int (n_pairs,), index into `queries`.
            product_rows: int (n_pairs,), index into `products`.

        Returns:
            float32 (n_pairs, 3), columns :data:`OVERLAPS`, each in [0, 1]: the cosine of the TF-IDF rows, and the
            shares of the query's weight in words and in n-grams that the product has too.

        Example:
            >>> lexicon = Lexicon.fit(["red lamp", "blue desk"])
            >>> rows = np.array([0, 0]), np.array([0, 1])
            >>> lexicon.overlap(["red lamp"], ["Red lamp", "desk"], *rows).round(2).tolist()
            [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
        """
        return shared(self.tfidf(queries), self.tfidf(products), query_rows, product_rows)


def shared(
    queries: sparse.csr_matrix, products: sparse.csr_matrix, query_rows: np.ndarray, product_rows: np.ndarray
) -> np.ndarray:
    """Return what the terms of each pair share.

    Args:
        queries: as :meth:`Lexicon.tfidf` returns it.
        products: likewise.
        query_rows: int (n_pairs,), rows of `queries`.
        product_rows: int (n_pairs,), rows of `products`.

    Returns:
        float32 (n_pairs, 3), columns :data:`OVERLAPS`, as :meth:`Lexicon.overlap` returns them.
    """
    result = np.zeros((len(query_rows), len(OVERLAPS)), dtype=np.float32)
    for start in range(0, len(query_rows), _ROWS):
        part = slice(start, start + _ROWS)
        query, product = _terms(queries, query_rows[part]), _terms(products, product_rows[part])
        result[part] = _shared(query, product, len(query_rows[part]))
    return np.clip(result, 0, 1)


_Terms = tuple[np.ndarray, np.ndarray, np.ndarray]  # place of the row, bucket and weight of each term


def _terms(matrix: sparse.csr_matrix, rows: np.ndarray) -> _Terms:
    """Return the terms of some rows, one row after the other, buckets ascending.

    Written in numpy, as is the rest: on a page of 40 pairs scipy's sparse products spend nearly all time on checks.
    """
    starts, lengths = matrix.indptr[rows], np.diff(matrix.indptr)[rows]
    places = np.repeat(np.arange(len(rows)), lengths)
    index = np.arange(len(places)) + (starts - (np.cumsum(lengths) - lengths))[places]
    return places, matrix.indices[index], matrix.data[index].astype(np.float64)


def _shared(query: _Terms, product: _Terms, pairs: int) -> np.ndarray:
    """Return :data:`OVERLAPS` of each pair, float64 (pairs, 3)."""
    places, buckets, weights = query
    keys, product_keys = places * BUCKETS + buckets, product[0] * BUCKETS + product[1]
    at = np.searchsorted(product_keys, keys)  # both ascend
    both = np.zeros(len(keys), dtype=bool)
    inside = at < len(product_keys)
    both[inside] = product_keys[at[inside]] == keys[inside]
    result = np.zeros((pairs, len(OVERLAPS)))
    result[:, 0] = np.bincount(places[both], weights[both] * product[2][at[both]], pairs)
    for column, chosen in ((1, buckets < WORDS), (2, buckets >= WORDS)):
        # The share of the query's weight that the product has; 0 for a query without such terms
        whole = np.bincount(places[chosen], weights[chosen], pairs)
        shared = np.bincount(places[chosen & both], weights[chosen & both], pairs)
        np.divide(shared, whole, out=result[:, column], where=whole > 0)
    return result


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Return vectors of length 1, those of length 0 as they are; (n, dimensions) in and out."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 1e-12)
