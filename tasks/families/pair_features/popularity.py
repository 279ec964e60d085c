"""How often products were seen, clicked or bought, and for how many queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from esci_tournament.tasks.families.product_keys import find, identities


@dataclass(frozen=True)
class Popularity:
    """Counts by product.

    Attributes:
        keys: uint64 (n,), ascending; see :func:`product_keys`.
        counts: float32 (n, 2 r), for each of r relations the weight of all edges and the number of queries.
    """

    keys: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, edges: pd.DataFrame | None, relations: Sequence[str], products: pd.DataFrame) -> Self:
        """Count the edges of each product.

        Args:
            edges: columns as in `FitData`; None where there are no relations.
            relations: what to count, r names.
            products: columns of `Dataset.products`; edges name its rows.

        Returns:
            The counts of the products that have an edge.
        """
        totals = edge_totals(edges, relations, len(products))
        rows = np.flatnonzero(totals.any(axis=1))
        keys = product_keys(products, rows)
        order = np.argsort(keys)
        return cls(keys[order], totals[rows[order]])

    def find(self, products: pd.DataFrame, rows: np.ndarray) -> np.ndarray:
        """Return the counts of some products.

        Args:
            products: columns product_id and locale.
            rows: int (m,), rows of `products`.

        Returns:
            float32 (m, 2 r); 0 for a product without edges.
        """
        found = np.zeros((len(rows), self.counts.shape[1]), dtype=np.float32)
        place = find(self.keys, product_keys(products, rows))
        found[place >= 0] = self.counts[place[place >= 0]]
        return found

    def only(self, products: pd.DataFrame) -> Self:
        """Return the counts of these products alone."""
        kept = np.isin(self.keys, product_keys(products, np.arange(len(products))))
        return type(self)(self.keys[kept], self.counts[kept])

    def changed(self, other: Popularity) -> int:
        """Return the number of products whose counts are others in `other`."""
        both, mine, theirs = np.intersect1d(self.keys, other.keys, assume_unique=True, return_indices=True)
        same = int((self.counts[mine] == other.counts[theirs]).all(axis=1).sum()) if len(both) else 0
        return len(self.keys) + len(other.keys) - len(both) - same

    def save(self, folder: Path) -> None:
        """Write both arrays as npy files into an existing folder."""
        np.save(folder / "popularity_keys.npy", self.keys)
        np.save(folder / "popularity_counts.npy", self.counts)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return what :meth:`save` wrote.

        Raises:
            OSError: if a file is missing.
            ValueError: if a file is not what :meth:`save` writes.
        """
        return cls(*(np.load(folder / f"popularity_{name}.npy", allow_pickle=False) for name in ("keys", "counts")))


def edge_totals(edges: pd.DataFrame | None, relations: Sequence[str], products: int) -> np.ndarray:
    """Return weight and number of queries of each product's edges, float32 (products, 2 r)."""
    totals = np.zeros((products, 2 * len(relations)), dtype=np.float32)
    for number, part in enumerate(_by_relation(edges, relations)):
        rows = part["product"].to_numpy()
        totals[:, 2 * number] = np.bincount(rows, part["weight"].to_numpy(), products)
        distinct = part[["product", "query_key"]].drop_duplicates()["product"].to_numpy()
        totals[:, 2 * number + 1] = np.bincount(distinct, minlength=products)
    return totals


def of_own_query(edges: pd.DataFrame | None, relations: Sequence[str], pairs: pd.DataFrame) -> np.ndarray:
    """Return what the query of each pair contributes to its product's counts.

    A pair that is learnt from may have edges of its own query, a pair that is scored later has none. What is taken away
    here makes both alike: otherwise the model would learn the label from the customers who gave it.

    Args:
        edges: columns as in `FitData`; None where there are no relations.
        relations: r names.
        pairs: columns product and query_key.

    Returns:
        float32 (n, 2 r), to be subtracted from :meth:`Popularity.find`.
    """
    own = np.zeros((len(pairs), 2 * len(relations)), dtype=np.float32)
    for number, part in enumerate(_by_relation(edges, relations)):
        weight = part.groupby(["query_key", "product"], sort=False)["weight"].sum()
        wanted = pd.MultiIndex.from_arrays([pairs["query_key"].to_numpy(), pairs["product"].to_numpy()])
        found = weight.reindex(wanted).to_numpy(dtype=np.float64, na_value=0.0)
        own[:, 2 * number], own[:, 2 * number + 1] = found, found > 0
    return own


def product_keys(products: pd.DataFrame, rows: np.ndarray) -> np.ndarray:
    """Return a key of each product's id and locale, uint64 (n,): its counts do not depend on its text."""
    ids, locales = (np.asarray(products[name].array.take(rows), object) for name in ("product_id", "locale"))
    return identities(ids, locales, [""] * len(rows))


def _by_relation(edges: pd.DataFrame | None, relations: Sequence[str]) -> list[pd.DataFrame]:
    if edges is None or not relations:
        return []
    if len(relations) == 1:
        return [edges]
    kinds = edges["relation"].astype(str)
    return [edges[(kinds == name).to_numpy()] for name in relations]
