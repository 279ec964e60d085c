"""Products that recur over queries: the variance that a bootstrap over queries alone does not see."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from esci_tournament.registry.errors import UsageError
from esci_tournament.registry.labels import CLASSES
from esci_tournament.tasks.ensemble.bootstrap import effective_queries

METHOD = 1  # in the digest of every verdict that knows the products: raise it when the bounds are made another way
_MOST = 0.999  # of the pairs of a locale, on one product: the correction for its own weight stops there
_SIDES = ("challenger", "champion", "single")


@dataclass(frozen=True)
class RecurringPairs:
    """The test pairs whose product occurs under more than one query; one entry a pair.

    Pairs of all other products are of no use here: each has its query's part in the bootstrap, and no more.

    Attributes:
        query_key: uint64 (m,).
        product: int64 (m,), equal for pairs of one product; the numbers have no other meaning.
        label: int8 (m,), true class, index into `LABELS`.
        challenger: int8 (m,), what it answered.
        champion: the same of the champion, or None.
        single: the same of the best model alone, or None.
        challenger_bin: int8 (m,), confidence bin, see :func:`esci_tournament.tasks.ensemble.counts.gaps_of_pairs`.
        challenger_gap: float64 (m,), confidence minus correctness.
        champion_bin: the same of the champion, or None.
        champion_gap: the same of the champion, or None.
        challenger_loss: float64 (m,), log loss in nats, or None.
        champion_loss: the same of the champion, or None.
        weight: float64 (m,), how much the query of each pair counts, or None where all count alike.
    """

    query_key: np.ndarray
    product: np.ndarray
    label: np.ndarray
    challenger: np.ndarray
    champion: np.ndarray | None = None
    single: np.ndarray | None = None
    challenger_bin: np.ndarray | None = None
    challenger_gap: np.ndarray | None = None
    champion_bin: np.ndarray | None = None
    champion_gap: np.ndarray | None = None
    challenger_loss: np.ndarray | None = None
    champion_loss: np.ndarray | None = None
    weight: np.ndarray | None = None

    @classmethod
    def among(cls, products: np.ndarray, query_key: np.ndarray, **of_pairs: np.ndarray | None) -> RecurringPairs:
        """Return those of all test pairs whose product occurs under more than one query.

        Args:
            products: int (n,), the product of each pair; one below 0 is not known, and recurs nowhere.
            query_key: uint64 (n,).
            **of_pairs: the other attributes of the class, each (n,) or None.

        Returns:
            The pairs, in the order that :meth:`canonical` gives them.
        """
        groups, queries = np.asarray(query_key, np.uint64), np.unique(query_key, return_inverse=True)[1]
        known, place = np.unique(np.asarray(products, np.int64), return_inverse=True)
        cells = np.unique(place * (queries.max(initial=0) + 1) + queries)
        under = np.bincount(cells // (queries.max(initial=0) + 1), minlength=len(known))
        kept = (under[place] > 1) & (known[place] >= 0)
        kinds: dict[str, type] = {"challenger_gap": np.float64, "champion_gap": np.float64}
        rest: dict[str, Any] = {
            name: None if values is None else np.asarray(values, kinds.get(name, np.int8))[kept]
            for name, values in of_pairs.items()
        }
        return cls(groups[kept], known[place][kept], **rest).canonical()

    def canonical(self) -> RecurringPairs:
        """Return the same, sorted by query, product and all that is known of a pair.

        Raises:
            UsageError: if not all attributes have one entry a pair.
        """
        arrays = dict(self.arrays())
        if len({np.shape(array) for array in arrays.values()}) != 1:
            shapes = ", ".join(f"{name} {np.shape(array)}" for name, array in arrays.items())
            raise UsageError(f"each pair of a recurring product needs one entry everywhere; there are {shapes}")
        order = np.lexsort(tuple(arrays.values())[::-1])
        return replace(self, **{name: np.asarray(array)[order] for name, array in arrays.items()})

    @property
    def gaps_known(self) -> bool:
        """Whether confidence bins and gaps of both sides are known."""
        gaps = (self.challenger_bin, self.challenger_gap, self.champion_bin, self.champion_gap)
        return all(array is not None for array in gaps)

    def arrays(self) -> list[tuple[str, np.ndarray]]:
        """Return the attributes that are known, by name, in the order of the class."""
        return [(one.name, array) for one in fields(self) if (array := getattr(self, one.name)) is not None]

    def check(self, query_key: np.ndarray, counts: tuple[np.ndarray | None, ...]) -> None:
        """Refuse pairs that are not among those that were counted.

        Args:
            query_key: uint64 (q,), the queries in ascending order.
            counts: int (q, 4, 4) of the challenger, the champion and the best model alone, None without the side.

        Raises:
            UsageError: if a query or an answer is not among the counts, or a side is missing.
        """
        rows = np.searchsorted(query_key, self.query_key)
        if len(rows) and (
            not len(query_key) or (query_key[np.minimum(rows, len(query_key) - 1)] != self.query_key).any()
        ):
            raise UsageError(
                "a pair of a recurring product has a query that is not judged; pass pairs of one test split"
            )
        for name, whole in zip(_SIDES, counts, strict=True):
            answered = getattr(self, name)
            if (answered is None) != (whole is None):
                raise UsageError(f"the answers of the {name} are known by query or by product only; pass both or none")
            if whole is None:
                continue
            cells = (rows * CLASSES + self.label) * CLASSES + answered
            if (np.bincount(cells, minlength=whole.size) > whole.reshape(-1)).any():
                raise UsageError(f"the {name}'s answers by product are not those by query; make both of the same pairs")

    def cells(self, side: int) -> np.ndarray:
        """Return the cell of the confusion matrix that each pair is in, int64 (m,), 0 to 15.

        Args:
            side: 0 the challenger, 1 the champion, 2 the best model alone.
        """
        answered = getattr(self, _SIDES[side])
        return self.label.astype(np.int64) * CLASSES + answered


class Recurrence:
    """The recurring products in one scope, ready to add up what their pairs change.

    Args:
        pairs: of the test split, in canonical order.
        query_key: uint64 (q,), the queries of the scope, ascending.
        strata: int (q,), the locale of each of them.
        sizes: (q,), pairs of each of them, times their weights if they have any.

    Attributes:
        chosen: bool (m,), which pairs are of the scope; influences of pairs are passed for these alone.
    """

    def __init__(self, pairs: RecurringPairs, query_key: np.ndarray, strata: np.ndarray, sizes: np.ndarray) -> None:
        self.chosen = np.isin(pairs.query_key, query_key)
        rows = np.searchsorted(query_key, pairs.query_key[self.chosen])
        self._strata = strata
        self._pairs_of = np.bincount(strata, weights=sizes)
        self._place = strata[rows]
        known, self._product = np.unique(pairs.product[self.chosen], return_inverse=True)
        cells, self._cell = np.unique(self._product * max(len(query_key), 1) + rows, return_inverse=True)
        self._product_of_cell = cells // max(len(query_key), 1)
        self._products = len(known)
        of = np.zeros(len(known), np.int64)
        of[self._product] = self._place  # a product belongs to one locale
        self._counts = np.ones(len(rows)) if pairs.weight is None else pairs.weight[self.chosen]
        share = np.bincount(self._product, self._counts, minlength=len(known)) / np.maximum(self._pairs_of[of], 1)
        self._weight = 1 / (1 - np.minimum(share, _MOST))

    def added(self, by_query: np.ndarray, by_pair: np.ndarray) -> tuple[float, float]:
        """Return what the products add to the variance of a metric or a difference, and how far to trust the sum.

        The variance with clusters of queries and of products (Cameron, Gelbach and Miller 2011) is that over queries,
        plus that over products, less that over pairs of both. The last two differ in products that recur alone: for
        each, the squared sum of its influences less the squares of those under one query. Influences are taken from
        the mean of their locale, and a product's sum is divided by the share of the pairs that are not its own, as in
        the jackknife: it has moved that mean itself.

        Args:
            by_query: float (q,), the influence of each query, in the metric's unit.
            by_pair: float (chosen.sum(),), the influence of each pair of a recurring product; of a pair that counts
                once, where queries have weights.

        Returns:
            The variance to add, 0 or more, and the effective number of clusters: that of queries (see
            :func:`esci_tournament.tasks.ensemble.bootstrap.effective_queries`), or fewer where few products make up
            much of the variance or of its error (after Satterthwaite 1946).
        """
        effective = effective_queries(by_query)
        if not self._products:
            return 0.0, effective
        totals = np.bincount(self._strata, weights=by_query)
        moved = self._counts * (by_pair - (totals / np.maximum(self._pairs_of, 1))[self._place])
        products = np.bincount(self._product, weights=moved, minlength=self._products) * self._weight
        squares = np.bincount(self._cell, weights=moved) ** 2
        shared = np.sort(products**2 - np.bincount(self._product_of_cell, weights=squares, minlength=self._products))
        added = max(float(shared.sum()), 0.0)
        means = totals / np.maximum(np.bincount(self._strata), 1)
        alone = float(((by_query - means[self._strata]) ** 2).sum())
        # The errors of both parts, in units of sqrt(2): a sum of n equal squares is known up to a share of sqrt(2 / n)
        unsure = alone / np.sqrt(effective) + float(np.sqrt((shared**2).sum()))
        return added, min(effective, ((alone + added) / unsure) ** 2 if unsure > 0 else effective)
