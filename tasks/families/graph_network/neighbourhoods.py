"""Neighbourhoods with a fixed fan-out, precomputed as plain arrays that can be memory-mapped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from esci_tournament.registry.errors import CandidateError
from esci_tournament.registry.files import publish, write_atomically

MISSING = -1


@dataclass(frozen=True)
class Neighbourhoods:
    """The strongest neighbours of every node, for one relation or several.

    Nodes are the products 0..n_products-1, then the graph's own queries in the order of `query_keys`.

    Attributes:
        neighbours: int32 (nodes, relations * fanout), relation after relation; within each, strongest first, padded
            with :data:`MISSING` on the right.
        weights: float32 (nodes, relations * fanout), 0 where there is no neighbour.
        query_keys: uint64 (n_queries,), ascending; empty when all relations are between products.
        n_products: rows of the catalogue the graph was built for.
        relations: how many relations stand side by side.
    """

    neighbours: np.ndarray
    weights: np.ndarray
    query_keys: np.ndarray
    n_products: int
    relations: int = 1

    @property
    def n_nodes(self) -> int:
        """Number of nodes, products and queries together."""
        return len(self.neighbours)

    @property
    def fanout(self) -> int:
        """Neighbours kept of each node in each relation."""
        return self.neighbours.shape[1] // self.relations

    def query_nodes(self, keys: np.ndarray) -> np.ndarray:
        """Return the node of each query key.

        Args:
            keys: uint64 (n,).

        Returns:
            int64 (n,), :data:`MISSING` for a query that is not in the graph.
        """
        keys = np.asarray(keys, dtype=np.uint64)
        if not len(self.query_keys):
            return np.full(len(keys), MISSING, dtype=np.int64)
        place = np.minimum(np.searchsorted(self.query_keys, keys), len(self.query_keys) - 1)
        return np.where(self.query_keys[place] == keys, place + self.n_products, MISSING)

    def save(self, folder: Path) -> None:
        """Write the arrays as .npy files, each of them whole or not at all; meta.json comes last."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("neighbours", "weights", "query_keys"):
            temporary = folder / f".{name}.npy"
            np.save(temporary, getattr(self, name))
            publish(temporary, folder / f"{name}.npy")
        meta = json.dumps({"n_products": self.n_products, "relations": self.relations})
        write_atomically(folder / "meta.json", meta.encode())

    @classmethod
    def load(cls, folder: Path) -> Neighbourhoods:
        """Memory-map what :meth:`save` wrote."""
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in ("neighbours", "weights", "query_keys")
        }
        return cls(**arrays, n_products=meta["n_products"], relations=meta.get("relations", 1))


def build(edges: pd.DataFrame, n_products: int, fanout: int) -> Neighbourhoods:
    """Keep the `fanout` strongest neighbours of every node.

    Edges are used both ways and self loops dropped. Repeated edges between a query and a product are summed; of an edge
    between products, which may stand in both directions, the larger weight counts. Ties go to the smaller node
    number, so the order of the rows changes nothing. It sorts the edges; no step loops over them one by one.

    Args:
        edges: `query_key` uint64, `product` int32, `weight` float32 for a relation between queries and products;
            `source` int32 in place of `query_key` for one between products. Other columns are not read.
        n_products: rows of the catalogue.
        fanout: neighbours kept of each node.

    Returns:
        The graph of one relation.

    Raises:
        CandidateError: if there is no edge, a product is out of range, or a weight is not finite and positive.

    Example:
        >>> edges = pd.DataFrame({"query_key": [7, 7, 9], "product": [0, 1, 1], "weight": [1.0, 2.0, 4.0]})
        >>> graph = build(edges, n_products=2, fanout=1)
        >>> graph.query_keys.tolist(), graph.neighbours.tolist()
        ([7, 9], [[2], [3], [1], [1]])
    """
    if not len(edges):
        raise CandidateError("the relation has no edges, so there is no graph to learn from; choose another relation")
    _check(edges, n_products)
    if "source" in edges.columns:
        keys = np.empty(0, dtype=np.uint64)
    else:
        keys = np.unique(edges["query_key"].to_numpy(dtype=np.uint64))
    n_nodes = n_products + len(keys)
    neighbours = np.full((n_nodes, fanout), MISSING, dtype=np.int32)
    weights = np.zeros((n_nodes, fanout), dtype=np.float32)
    for node, neighbour, weight in _directions(edges, keys, n_products):
        _keep_strongest(node, neighbour, weight, neighbours, weights)
    return Neighbourhoods(neighbours, weights, keys, n_products)


def stack(graphs: Sequence[Neighbourhoods]) -> Neighbourhoods:
    """Put graphs of one relation each side by side, over the same products and the queries of all of them.

    Args:
        graphs: at least one, all of the same catalogue and fan-out.

    Returns:
        One graph whose `relations` is the number of graphs, in their order.

    Raises:
        CandidateError: if they do not share catalogue and fan-out.
    """
    n_products, fanout = graphs[0].n_products, graphs[0].fanout
    if any((graph.n_products, graph.fanout, graph.relations) != (n_products, fanout, 1) for graph in graphs):
        raise CandidateError("only graphs of one relation, one catalogue and one fan-out can be put side by side")
    keys = np.unique(np.concatenate([graph.query_keys for graph in graphs]))
    moved = [_renumbered(graph, keys, n_products) for graph in graphs]
    neighbours, weights = (np.concatenate(arrays, axis=1) for arrays in zip(*moved, strict=True))
    return Neighbourhoods(neighbours, weights, keys, n_products, relations=len(graphs))


def refresh(
    old: Neighbourhoods, edges: pd.DataFrame, changed: pd.DataFrame, n_products: int | None = None
) -> tuple[Neighbourhoods, np.ndarray]:
    """Return what :func:`build` gives for `edges`, computing only the nodes at the ends of changed edges anew.

    Only edges at changed nodes are sorted; all others are read once, which is several times cheaper.

    Args:
        old: the graph of one relation before the change; it may be memory-mapped and stays as it is.
        edges: all edges after the change, as :func:`build` takes them.
        changed: the edges that came, went or have another weight (a changed one once is enough): the columns of both
            ends, `query_key` or `source`, and `product`.
        n_products: rows of the catalogue now; products may have been added at its end. Default: as before.

    Returns:
        The new graph, and the nodes whose neighbours were computed, int64, ascending; new products without an edge
        are among them.

    Raises:
        CandidateError: as :func:`build` does, or when the catalogue has shrunk or the graph holds several relations.
    """
    ends = changed["product"].to_numpy(dtype=np.int64)
    if "source" in edges.columns:
        products, keys = np.concatenate([ends, changed["source"].to_numpy(dtype=np.int64)]), np.empty(0, np.uint64)
    else:
        products, keys = ends, changed["query_key"].to_numpy(dtype=np.uint64)
    return refresh_at(old, edges, products, keys, n_products)


def refresh_at(
    old: Neighbourhoods, edges: pd.DataFrame, products: np.ndarray, keys: np.ndarray, n_products: int | None = None
) -> tuple[Neighbourhoods, np.ndarray]:
    """Do what :func:`refresh` does, given the ends of all changed edges in place of the edges.

    Args:
        old: the graph of one relation before the change; it may be memory-mapped and stays as it is.
        edges: all edges after the change, as :func:`build` takes them.
        products: int (n,), products at an end of a changed edge, in any order.
        keys: uint64 (m,), query keys at an end of a changed edge, in any order; not read if products are
            joined to products.
        n_products: rows of the catalogue now; products may have been added at its end. Default: as before.

    Returns:
        As :func:`refresh`.

    Raises:
        CandidateError: as :func:`refresh` does.
    """
    n_products = old.n_products if n_products is None else n_products
    if n_products < old.n_products or old.relations > 1:
        raise CandidateError(
            f"only a graph of one relation whose catalogue did not shrink can be refreshed (it has {old.relations} "
            f"relations, {old.n_products} products before and {n_products} now); build it anew"
        )
    if not len(edges):
        raise CandidateError("the relation has no edges, so there is no graph to learn from; choose another relation")
    _check(edges, n_products)
    between_products = "source" in edges.columns
    is_touched = np.zeros(n_products, dtype=bool)
    is_touched[products] = True
    if between_products:
        near = is_touched[edges["product"].to_numpy()] | is_touched[edges["source"].to_numpy()]
        keys = touched_keys = old.query_keys
    else:
        touched_keys = np.unique(keys.astype(np.uint64))
        of_touched_query = _is_among(edges["query_key"].to_numpy(dtype=np.uint64), touched_keys)
        near = is_touched[edges["product"].to_numpy()] | of_touched_query
        left = np.unique(edges["query_key"].to_numpy(dtype=np.uint64)[of_touched_query])
        keys = np.union1d(np.setdiff1d(old.query_keys, touched_keys, assume_unique=True), left)
    is_touched[old.n_products :] = True
    is_touched = np.concatenate([is_touched, _is_among(keys, touched_keys)])

    neighbours, weights = _renumbered(old, keys, n_products)
    neighbours[is_touched], weights[is_touched] = MISSING, 0
    for node, neighbour, weight in _directions(edges[near], keys, n_products):
        kept = is_touched[node]
        _keep_strongest(node[kept], neighbour[kept], weight[kept], neighbours, weights)
    return Neighbourhoods(neighbours, weights, keys, n_products), np.flatnonzero(is_touched)


def _is_among(keys: np.ndarray, few: np.ndarray) -> np.ndarray:
    """Return which keys are among the few, ascending ones, bool (n,), without sorting the many."""
    if not len(few):
        return np.zeros(len(keys), dtype=bool)
    return few[np.minimum(np.searchsorted(few, keys), len(few) - 1)] == keys


def _renumbered(graph: Neighbourhoods, keys: np.ndarray, n_products: int) -> tuple[np.ndarray, np.ndarray]:
    """Return neighbours and weights over other queries and a longer catalogue; rows that are new have no neighbour."""
    node = np.full(graph.n_nodes + 1, MISSING, dtype=np.int32)  # its last place stands for MISSING, which is -1
    node[: graph.n_products] = np.arange(graph.n_products)
    stays = _is_among(graph.query_keys, keys)
    node[graph.n_products : -1][stays] = np.searchsorted(keys, graph.query_keys[stays]) + n_products
    neighbours = np.full((n_products + len(keys), graph.neighbours.shape[1]), MISSING, dtype=np.int32)
    weights = np.zeros(neighbours.shape, dtype=np.float32)
    rows = np.flatnonzero(node[:-1] != MISSING)
    neighbours[node[rows]] = node[graph.neighbours[rows]]
    weights[node[rows]] = graph.weights[rows]
    return neighbours, weights


def _check(edges: pd.DataFrame, n_products: int) -> None:
    product = edges["product"].to_numpy(dtype=np.int32)
    weight = edges["weight"].to_numpy(dtype=np.float32)
    between_products = "source" in edges.columns
    ends = [product, edges["source"].to_numpy(dtype=np.int32)] if between_products else [product]
    for end in ends:
        if end.min() < 0 or end.max() >= n_products:
            outside = int(((end < 0) | (end >= n_products)).sum())
            raise CandidateError(f"{outside} edges name a product outside the catalogue of {n_products} rows")
    if not (np.isfinite(weight).all() and (weight > 0).all()):
        wrong = int((~(np.isfinite(weight) & (weight > 0))).sum())
        raise CandidateError(f"{wrong} edges have a weight that is not a positive number; drop or correct them")


def _directions(
    edges: pd.DataFrame, keys: np.ndarray, n_products: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield node, neighbour and weight of distinct edges until every edge was given in both directions.

    Between queries and products it is one direction at a time: half the memory.
    """
    product = edges["product"].to_numpy(dtype=np.int32)
    weight = edges["weight"].to_numpy(dtype=np.float32)
    if "source" in edges.columns:
        source = edges["source"].to_numpy(dtype=np.int32)
        first, second = np.minimum(product, source), np.maximum(product, source)
        keep = first != second
        first, second, weight = _merge(first[keep], second[keep], weight[keep], n_products, largest=True)
        both = np.concatenate([first, second]), np.concatenate([second, first])
        yield *both, np.concatenate([weight, weight])
        return
    query = (np.searchsorted(keys, edges["query_key"].to_numpy(dtype=np.uint64)) + n_products).astype(np.int32)
    first, second, weight = _merge(product, query, weight, n_products + len(keys))
    yield first, second, weight
    yield second, first, weight


def _merge(
    first: np.ndarray, second: np.ndarray, weight: np.ndarray, n_nodes: int, largest: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sum the weights of repeated edges, or keep the largest.

    Sorting by weight within an edge makes the sum independent of the order of the rows.

    Returns:
        First node and second node, int32, and weight, float32, of each distinct edge, in ascending order.
    """
    if not len(first):
        return first, second, weight
    key = first.astype(np.int64) * n_nodes + second
    order = np.lexsort((weight, key))
    key, weight = key[order], weight[order]
    del order
    starts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
    if len(starts) < len(key):
        gather = np.maximum.reduceat if largest else np.add.reduceat
        weight = gather(weight.astype(np.float64), starts).astype(np.float32)
        key = key[starts]
    return (key // n_nodes).astype(np.int32), (key % n_nodes).astype(np.int32), weight


def _keep_strongest(
    node: np.ndarray, neighbour: np.ndarray, weight: np.ndarray, neighbours: np.ndarray, weights: np.ndarray
) -> None:
    """Write each node's strongest neighbours into its row of the two output arrays."""
    if not len(node):
        return
    # Node and descending weight fit in one 64-bit key: the bits of a positive float32 order as the float does.
    key = (node.astype(np.uint64) << np.uint64(32)) | (~weight.view(np.uint32)).astype(np.uint64)
    order = np.lexsort((neighbour, key))
    node = node[order]
    starts = np.flatnonzero(np.concatenate([[True], node[1:] != node[:-1]]))
    sizes = np.diff(np.append(starts, len(node)))
    rank = np.arange(len(node)) - np.repeat(starts, sizes)
    keep = rank < neighbours.shape[1]
    rows, columns, order = node[keep], rank[keep], order[keep]
    neighbours[rows, columns] = neighbour[order]
    weights[rows, columns] = weight[order]
