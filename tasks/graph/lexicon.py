"""How rare each hashed term is, and what a query and a product share because of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from tasks.graph.ngrams import BUCKETS, WORDS, count

OVERLAPS = ("tfidf_cosine", "words_shared", "ngrams_shared")
_NGRAM_SHARE = np.float32(0.5)  # n-grams outnumber words; without this the words hardly count
_ROWS = 20_000


@dataclass(frozen=True)
class Lexicon:
    """Inverse document frequencies, log((1 + n) / (1 + df)) + 1 as in scikit-learn, float32 (BUCKETS,)."""

    idf: np.ndarray

    @classmethod
    def fit(cls, texts: Sequence[str]) -> Lexicon:
        """Count in how many texts each term stands."""
        frequency = np.zeros(BUCKETS, dtype=np.int64)
        for start in range(0, len(texts), _ROWS):
            frequency += np.bincount(count(texts[start : start + _ROWS]).indices, minlength=BUCKETS)
        return cls((np.log((1 + len(texts)) / (1 + frequency)) + 1).astype(np.float32))

    def tfidf(self, texts: Sequence[str]) -> sparse.csr_matrix:
        """Return (1 + log tf) * idf, each row of length 1 (or 0 without a term), float32 CSR (len(texts), BUCKETS)."""
        matrix = count(texts)
        weights = (1 + np.log(matrix.data)) * self.idf[matrix.indices]
        weights[matrix.indices >= WORDS] *= _NGRAM_SHARE
        rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
        norms = np.sqrt(np.bincount(rows, weights=weights.astype(np.float64) ** 2, minlength=matrix.shape[0]))
        matrix.data = (weights / norms[rows]).astype(np.float32)
        return matrix

    def overlap(
        self, queries: Sequence[str], products: Sequence[str], query_rows: np.ndarray, product_rows: np.ndarray
    ) -> np.ndarray:
        """Return what the texts of each pair share, float32 (n_pairs, 3), columns :data:`OVERLAPS`, each in [0, 1].

        Args:
            queries: distinct query texts.
            products: distinct product texts.
            query_rows: int (n_pairs,), index into `queries`.
            product_rows: int (n_pairs,), index into `products`.
        """
        query_terms, product_terms = self.tfidf(queries), self.tfidf(products)
        result = np.zeros((len(query_rows), len(OVERLAPS)), dtype=np.float32)
        for start in range(0, len(query_rows), _ROWS):
            part = slice(start, start + _ROWS)
            left, right = query_terms[query_rows[part]], product_terms[product_rows[part]]
            result[part, 0] = np.asarray(left.multiply(right).sum(axis=1)).ravel()
            present = right.copy()
            present.data = np.ones_like(present.data)
            shared = left.multiply(present).tocsr()
            result[part, 1] = _share(shared, left, words=True)
            result[part, 2] = _share(shared, left, words=False)
        return np.clip(result, 0, 1)


def _share(shared: sparse.csr_matrix, whole: sparse.csr_matrix, words: bool) -> np.ndarray:
    """Return which share of a query's term weight the product has, 0 for a query without such terms."""
    masses = []
    for matrix in (shared, whole):
        chosen = (matrix.indices < WORDS) == words
        rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
        masses.append(np.bincount(rows[chosen], weights=matrix.data[chosen], minlength=matrix.shape[0]))
    return np.divide(masses[0], masses[1], out=np.zeros(whole.shape[0]), where=masses[1] > 0)
