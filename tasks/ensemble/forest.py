"""The tables behind the attribution: for each leaf and each pattern of its path, what it adds to each member.

The values are those of path-dependent TreeSHAP (Lundberg et al. 2020, "From local explanations to global understanding
with explainable AI for trees"). On the way to a leaf stand d distinct columns; a row either satisfies all conditions on
a column or not, so that a leaf has at most 2**d answers (the observation behind WOODELF, Nadel and Wettenstein).
With z_f the share of training rows that the conditions on f let through and o_f in {0, 1} what the row does,

    phi_f = value * (o_f - z_f) * integral over t in [0, 1] of prod_{g != f} (o_g t + z_g (1 - t)) dt

(the integral is the Shapley weighting of all subsets; Gauss-Legendre with (d + 1) // 2 nodes is exact for it). Each
leaf's 2**d answers, summed by member, are computed once; a row then costs one look-up a leaf and member.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numba import njit

from esci_tournament.registry.errors import UsageError
from esci_tournament.registry.labels import CLASSES
from esci_tournament.tasks.ensemble.aggregate import Aggregator
from esci_tournament.tasks.ensemble.pool import Pool
from esci_tournament.tasks.ensemble.trees import Tree

_MOST_ENTRIES = 2**27  # of eight bytes each


@dataclass(frozen=True)
class Forest:
    """The aggregator's trees as flat arrays, with each leaf's table of answers; made by :func:`tabulate`.

    Attributes:
        first_node: int64 (trees + 1,), offset of each tree's inner nodes.
        first_leaf: int64 (trees + 1,), offset of each tree's leaves.
        column: int64 (nodes,), column that the split reads.
        threshold: float64 (nodes,): `<=` goes left.
        left: int64 (nodes,), >= 0 a node of the same tree, < 0 the complement of a leaf.
        right: int64 (nodes,), likewise.
        bit: int64 (nodes,), the bit of the pattern that this split decides.
        fresh: bool (nodes,), True where no split higher up on the path reads the column.
        table_start: int64 (leaves + 1,), offsets into `table`.
        group_start: int64 (leaves + 1,), offsets into `group`.
        table: float64, for each leaf and each member on its path 2**d answers.
        group: int64, the members on each leaf's path.
        bits: int64 (leaves,), d.
        base: float64 (4,), the expected raw score of each class, with the pool's.
        groups: number of members.
        pool: what the trees start from; None for nothing.
    """

    first_node: np.ndarray
    first_leaf: np.ndarray
    column: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    bit: np.ndarray
    fresh: np.ndarray
    table_start: np.ndarray
    group_start: np.ndarray
    table: np.ndarray
    group: np.ndarray
    bits: np.ndarray
    base: np.ndarray
    groups: int
    pool: Pool | None = None


def tabulate(aggregator: Aggregator) -> Forest:
    """Return the aggregator's trees with the table of each leaf's answers.

    Args:
        aggregator: a fitted aggregator.

    Returns:
        The tables, which do not depend on the pairs that are explained.

    Raises:
        UsageError: if a path reads more than 16 distinct columns, or the tables would take more than 1 GiB.
    """
    trees = aggregator.trees
    groups = len(aggregator.members)
    base = np.zeros(CLASSES)
    paths = _Paths()
    for number, tree in enumerate(trees):
        base[number % CLASSES] += tree.expected()
        paths.add(tree)
    starts = np.concatenate([[0], np.cumsum([len(path) for path in paths.columns])]).astype(np.int64)
    column = np.array([entry for path in paths.columns for entry in path], dtype=np.int64)
    share = np.array([entry for path in paths.shares for entry in path], dtype=np.float64)
    bits = np.diff(starts)
    if len(bits) and bits.max() > 16:
        raise UsageError(
            f"a path of the aggregator asks {bits.max()} columns, 16 at most can be tabulated; lower `depth`"
        )
    member = column // CLASSES
    distinct = [np.unique(member[start:stop]) for start, stop in pairwise(starts)]
    group_start = np.concatenate([[0], np.cumsum([len(each) for each in distinct])]).astype(np.int64)
    table_start = np.concatenate([[0], np.cumsum([len(each) << d for each, d in zip(distinct, bits, strict=True)])])
    if table_start[-1] > _MOST_ENTRIES:
        raise UsageError(
            f"the aggregator's tables would have {table_start[-1]:,} entries, {_MOST_ENTRIES:,} at most can be made; "
            "lower `depth`"
        )
    group = np.concatenate([*distinct, np.zeros(0, np.int64)]).astype(np.int64)
    slot = np.concatenate(
        [*(np.searchsorted(each, member[a:b]) for each, a, b in zip(distinct, starts[:-1], starts[1:], strict=True)),
         np.zeros(0, np.int64)]
    ).astype(np.int64)  # fmt: skip
    nodes, weights = _quadrature(int(bits.max(initial=1)))
    table = np.zeros(int(table_start[-1]))
    _fill(
        starts,
        share,
        slot,
        np.array(paths.values, dtype=np.float64),
        table_start.astype(np.int64),
        nodes,
        weights,
        table,
    )
    return Forest(
        first_node=np.array(paths.first_node, dtype=np.int64),
        first_leaf=np.array(paths.first_leaf, dtype=np.int64),
        column=np.array(paths.node_column, dtype=np.int64),
        threshold=np.array(paths.threshold, dtype=np.float64),
        left=np.array(paths.left, dtype=np.int64),
        right=np.array(paths.right, dtype=np.int64),
        bit=np.array(paths.bit, dtype=np.int64),
        fresh=np.array(paths.fresh, dtype=np.bool_),
        table_start=table_start.astype(np.int64),
        group_start=group_start,
        table=table,
        group=group,
        bits=bits.astype(np.int64),
        base=base if aggregator.pool is None else base + aggregator.pool.base,
        groups=groups,
        pool=aggregator.pool,
    )


class _Paths:
    """Collects, tree by tree, what is asked on the way to each leaf."""

    def __init__(self) -> None:
        self.first_node, self.first_leaf = [0], [0]
        self.node_column: list[int] = []
        self.threshold: list[float] = []
        self.left: list[int] = []
        self.right: list[int] = []
        self.bit: list[int] = []
        self.fresh: list[bool] = []
        self.columns: list[list[int]] = []
        self.shares: list[list[float]] = []
        self.values: list[float] = []

    def add(self, tree: Tree) -> None:
        leaves, nodes = len(tree.value), len(tree.column)
        columns: list[list[int]] = [[] for _ in range(leaves)]
        shares: list[list[float]] = [[] for _ in range(leaves)]
        bits, fresh = [0] * nodes, [True] * nodes
        pending: list[tuple[int, list[int], list[float]]] = [(0, [], [])] if nodes else []
        while pending:
            node, asked, let_through = pending.pop()
            asked_column = int(tree.column[node])
            fresh[node] = asked_column not in asked
            bits[node] = len(asked) if fresh[node] else asked.index(asked_column)
            for child in (int(tree.left[node]), int(tree.right[node])):
                count = tree.node_count[child] if child >= 0 else tree.leaf_count[~child]
                share = float(count / tree.node_count[node])
                path = [*asked, asked_column] if fresh[node] else asked
                passed = [*let_through, 1.0] if fresh[node] else list(let_through)
                passed[bits[node]] *= share
                if child >= 0:
                    pending.append((child, path, passed))
                else:
                    columns[~child], shares[~child] = path, passed
        self.node_column += tree.column.tolist()
        self.threshold += tree.threshold.tolist()
        self.left += tree.left.tolist()
        self.right += tree.right.tolist()
        self.bit += bits
        self.fresh += fresh
        self.columns += columns
        self.shares += shares
        self.values += tree.value.tolist()
        self.first_node.append(self.first_node[-1] + nodes)
        self.first_leaf.append(self.first_leaf[-1] + leaves)


def _quadrature(most_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return Gauss-Legendre nodes and weights on [0, 1] that are exact for degree `most_bits` - 1."""
    nodes, weights = np.polynomial.legendre.leggauss(max((most_bits + 1) // 2, 1))
    return (nodes + 1) / 2, weights / 2


@njit(cache=True, nogil=True)
def _fill(starts, share, slot, value, table_start, nodes, weights, table):  # pragma: no cover - compiled
    for leaf in range(len(value)):
        first = starts[leaf]
        bits = starts[leaf + 1] - first
        size = 1 << bits
        for pattern in range(size):
            for q in range(len(nodes)):
                t = nodes[q]
                product = weights[q] * value[leaf]
                for f in range(bits):
                    z = share[first + f] * (1.0 - t)
                    product *= z + t if (pattern >> f) & 1 else z
                for f in range(bits):
                    z = share[first + f]
                    on = (pattern >> f) & 1
                    factor = z * (1.0 - t) + (t if on else 0.0)
                    place = table_start[leaf] + slot[first + f] * size + pattern
                    table[place] += product / factor * (on - z)
