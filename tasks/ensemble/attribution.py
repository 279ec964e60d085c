"""Exact SHAP values of the aggregator, summed over each member's columns; the tables come from `forest.py`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit

from esci_tournament.registry.errors import TournamentError
from esci_tournament.registry.labels import CLASSES
from esci_tournament.tasks.ensemble.aggregate import Aggregator, flatten
from esci_tournament.tasks.ensemble.forest import Forest, tabulate

__all__ = [
    *("Forest", "as_shares", "attribute", "attribute_rows", "check_additivity", "evenly", "tabulate", "utilities"),
]

_BLOCK = 512  # rows: the working set of a block and a tree's tables stay in the second-level cache
_CHECKED_ROWS = 512
_TOLERANCE = 1e-6  # of the largest raw score


def attribute(
    aggregator: Aggregator, columns: np.ndarray, threads: int = 1, forest: Forest | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return what each member adds to each raw class score of each pair, and the expected raw scores.

    Args:
        aggregator: the aggregator whose scores are explained.
        columns: float32 (n, k, 4), member scores.
        threads: threads to use.
        forest: the result of :func:`tabulate` if it is at hand already.

    Returns:
        float64 (n, 4, k) and float64 (4,): base + sum over members = the aggregator's raw scores, to rounding.

    Raises:
        TournamentError: if that sum does not hold on up to 512 rows, spread evenly over the input.
    """
    forest = forest or tabulate(aggregator)
    values = attribute_rows(forest, flatten(columns, aggregator.members), threads)
    check_additivity(aggregator, columns, values, forest.base)
    return values, forest.base


def check_additivity(aggregator: Aggregator, columns: np.ndarray, values: np.ndarray, base: np.ndarray) -> float:
    """Check that base + contributions are the raw scores, on up to 512 rows spread evenly over the input.

    Args:
        aggregator: the aggregator whose scores are explained.
        columns: float32 (n, k, 4), member scores.
        values: float64 (n, 4, k), contributions of the members.
        base: float64 (4,), expected raw scores.

    Returns:
        The largest gap, as a share of the largest raw score; 0 without a row.

    Raises:
        TournamentError: if it is above 1e-6.
    """
    if not len(columns):
        return 0.0
    rows = evenly(len(columns), _CHECKED_ROWS)
    raw = aggregator.raw_scores(columns[rows])
    gap = float(np.abs(base + values[rows].sum(axis=2) - raw).max() / max(np.abs(raw).max(), 1e-12))
    if not gap <= _TOLERANCE:
        raise TournamentError(
            f"the members' contributions do not add up to the aggregator's scores: off by {gap:.2e} of the largest "
            f"score on {len(rows)} pairs checked, {_TOLERANCE:g} is allowed; the ranking would be wrong, so it is not "
            "made: fit the aggregator again, and report a bug if it happens again"
        )
    return gap


def attribute_rows(forest: Forest, features: np.ndarray, threads: int = 1) -> np.ndarray:
    """Return the contributions of the members, without the check that they add up.

    Args:
        forest: the tables of the aggregator's trees.
        features: float64 (n, 4 k), member scores as :func:`flatten` returns them.
        threads: threads to use; they do not change the result.

    Returns:
        float64 (n, 4, k), class and member of each row.
    """
    rows = len(features)
    values = np.zeros((rows, CLASSES, forest.groups))
    blocks = [(start, min(start + _BLOCK, rows)) for start in range(0, rows, _BLOCK)]

    def work(block: tuple[int, int]) -> None:
        start, stop = block
        _look_up(
            np.ascontiguousarray(features[start:stop].T), forest.first_node, forest.first_leaf, forest.column,
            forest.threshold, forest.left, forest.right, forest.bit, forest.fresh, forest.table_start,
            forest.group_start, forest.table, forest.group, forest.bits, values[start:stop],
        )  # fmt: skip

    # Python's threads around a kernel that releases the lock: numba's parallel layers must not be entered from
    # two threads at once, and the scorer does that
    if threads > 1 and len(blocks) > 1:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, blocks))
    else:
        for block in blocks:
            work(block)
    if forest.pool is not None:
        values += forest.pool.contributions(features.reshape(rows, forest.groups, CLASSES))
    return values


def utilities(
    aggregator: Aggregator, columns: np.ndarray, threads: int = 1, rows: int | None = 2000, seed: int = 0
) -> dict[str, float]:
    """Return the utility of each member, without intervals; selection calls it at each step.

    Args:
        aggregator: the ensemble's aggregator.
        columns: float32 (n, k, 4), member scores.
        threads: threads to use; they do not change the result.
        rows: pairs used at most, drawn at random; None for all.
        seed: of the draw.

    Returns:
        Name -> share; the shares sum to 1.

    Raises:
        TournamentError: if the contributions do not add up to the scores.
    """
    if rows is not None and len(columns) > rows:
        columns = columns[np.sort(np.random.default_rng(seed).choice(len(columns), rows, replace=False))]
    forest = tabulate(aggregator)
    values = attribute_rows(forest, flatten(columns, aggregator.members), threads)
    check_additivity(aggregator, columns, values, forest.base)
    shares = as_shares(np.abs(values).sum(axis=(0, 1)))
    return dict(zip(aggregator.members, shares.tolist(), strict=True))


def evenly(rows: int, most: int) -> np.ndarray:
    """Return at most `most` row numbers, int64, ascending, spread evenly over `rows`.

    Example:
        >>> evenly(100, 3).tolist(), evenly(2, 3).tolist()
        ([0, 49, 99], [0, 1])
    """
    return np.unique(np.linspace(0, rows - 1, min(most, rows)).astype(np.int64))


def as_shares(totals: np.ndarray) -> np.ndarray:
    """Return totals, float (k,), as shares of their sum, float64 (k,); all alike where the sum is 0."""
    whole = totals.sum()
    return totals / whole if whole > 0 else np.full(len(totals), 1 / len(totals))


@njit(cache=True, nogil=True)
def _look_up(
    features, first_node, first_leaf, column, threshold, left, right, bit, fresh, table_start, group_start, table,
    group, bits, values,
):  # fmt: skip  # pragma: no cover - compiled
    rows = features.shape[1]
    classes, groups = values.shape[1], values.shape[2]
    trees = len(first_node) - 1
    most_nodes = 1
    for tree in range(trees):
        most_nodes = max(most_nodes, first_leaf[tree + 1] - first_leaf[tree])
    node_pattern = np.zeros((most_nodes, rows), np.uint16)
    leaf_pattern = np.zeros((most_nodes, rows), np.uint16)
    sums = np.zeros((classes, groups, rows))
    for tree in range(trees):
        node_offset, leaf_offset = first_node[tree], first_leaf[tree]
        node_pattern[0, :] = 0
        for node in range(first_node[tree + 1] - node_offset):
            place = node_offset + node
            bound, mask = threshold[place], np.uint16(1 << bit[place])
            seen = features[column[place]]
            above = node_pattern[node]
            to_left = node_pattern[left[place]] if left[place] >= 0 else leaf_pattern[~left[place]]
            to_right = node_pattern[right[place]] if right[place] >= 0 else leaf_pattern[~right[place]]
            keep = np.uint16(~mask)
            if fresh[place]:
                for row in range(rows):
                    old = above[row]
                    yes = seen[row] <= bound
                    to_left[row] = old | mask if yes else old
                    to_right[row] = old if yes else old | mask
            else:
                for row in range(rows):
                    old = above[row]
                    yes = seen[row] <= bound
                    to_left[row] = old if yes else old & keep
                    to_right[row] = old & keep if yes else old
        for leaf in range(first_leaf[tree + 1] - leaf_offset):
            place = leaf_offset + leaf
            pattern = leaf_pattern[leaf]
            for position in range(group_start[place + 1] - group_start[place]):
                answers = table[table_start[place] + (position << bits[place]) :]
                total = sums[tree % classes, group[group_start[place] + position]]
                for row in range(rows):
                    total[row] += answers[pattern[row]]
    for row in range(rows):
        for label in range(classes):
            for member in range(groups):
                values[row, label, member] = sums[label, member, row]
