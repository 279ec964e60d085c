"""Weights by which the queries that can be judged stand for all test queries."""

from __future__ import annotations

import numpy as np

FEWEST = 10  # judged queries of a group that stand for those that are left out; smaller groups are joined
LARGEST = 5.0  # a query that stood for more would make up too much of the verdict


def representative(locale: np.ndarray, frequency: np.ndarray, judged: np.ndarray) -> np.ndarray:
    """Return how much each judged query counts, so that locales and frequent queries have the share they had.

    Queries are grouped by locale and by the decimal places of their frequency (0, 1 to 9, 10 to 99, ...); a group with
    few judged queries is joined with the next rarer one, the rarest with the next. A query's weight is the number of
    all queries of its group by that of the judged ones: post-stratification, which corrects as far as queries of one
    group are alike.

    Args:
        locale: str (q,), of all test queries.
        frequency: (q,), how often each is asked, 0 or more.
        judged: bool (q,), which of them can be judged; at least one.

    Returns:
        float64 (judged.sum(),), mean 1, none above 5 before the mean is made 1.

    Example:
        >>> frequency, judged = np.repeat([0, 50], 40), np.tile([True, False], 40)
        >>> judged[40:60] = False
        >>> representative(np.repeat("us", 80), frequency, judged).round(2)[[0, -1]].tolist()
        [0.75, 1.5]
    """
    digits = np.where(frequency > 0, np.floor(np.log10(np.maximum(frequency, 1))) + 1, 0).astype(np.int64)
    weights = np.ones(len(locale))
    for place in np.unique(locale[judged]):
        here = np.flatnonzero(locale == place)
        group = _joined(digits[here], judged[here])
        whole, seen = np.bincount(group), np.bincount(group[judged[here]], minlength=group.max() + 1)
        weights[here] = np.minimum((whole / np.maximum(seen, 1))[group], LARGEST)
    found = weights[judged]
    return found / found.mean()


def _joined(group: np.ndarray, judged: np.ndarray) -> np.ndarray:
    """Return the groups of a locale's queries, the small ones joined with a neighbour, int64 (q,)."""
    group = group.copy()
    while True:
        known = np.unique(group)
        seen = np.array([judged[group == one].sum() for one in known])
        small = np.flatnonzero(seen < FEWEST)
        if len(known) == 1 or not len(small):
            return group
        one = small[-1]
        group[group == known[one]] = known[one - 1] if one else known[1]
