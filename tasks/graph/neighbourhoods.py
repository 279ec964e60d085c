"""Neighbourhoods with a fixed fan-out, precomputed as plain arrays that can be memory-mapped."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from registry.errors import CandidateError

MISSING = -1


@dataclass(frozen=True)
class Neighbourhoods:
    """The strongest neighbours of every node.

    Nodes are the products 0..n_products-1, then the graph's own queries in the order of `query_keys`.

    Attributes:
        neighbours: int32 (nodes, fanout), strongest first, padded with :data:`MISSING` on the right.
        weights: float32 (nodes, fanout), 0 where there is no neighbour.
        query_keys: uint64 (n_queries,), ascending; empty for a relation between products.
        n_products: rows of the catalogue the graph was built for.
    """

    neighbours: np.ndarray
    weights: np.ndarray
    query_keys: np.ndarray
    n_products: int

    @property
    def n_nodes(self) -> int:
        return len(self.neighbours)

    @property
    def fanout(self) -> int:
        return self.neighbours.shape[1]

    def query_nodes(self, keys: np.ndarray) -> np.ndarray:
        """Return the node of each query key, int64 (n,), :data:`MISSING` for a query the graph does not know."""
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
            os.replace(temporary, folder / f"{name}.npy")
        temporary = folder / ".meta.json"
        temporary.write_text(json.dumps({"n_products": self.n_products}), encoding="utf-8")
        os.replace(temporary, folder / "meta.json")

    @classmethod
    def load(cls, folder: Path) -> Neighbourhoods:
        """Memory-map what :meth:`save` wrote."""
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in ("neighbours", "weights", "query_keys")
        }
        return cls(**arrays, n_products=meta["n_products"])


def build(edges: pd.DataFrame, n_products: int, fanout: int) -> Neighbourhoods:
    """Keep the `fanout` strongest neighbours of every node.

    Edges are used both ways and self loops dropped. Repeated edges between a query and a product are summed; of an edge
    between products, which may stand in both directions, the larger weight counts. Ties go to the smaller node
    number, so the order of the rows changes nothing. Sort-based throughout: no step walks the edges one by one.

    Args:
        edges: `query_key` uint64, `product` int32, `weight` float32 for a relation between queries and products;
            `source` int32 in place of `query_key` for one between products. Other columns are not read.
        n_products: rows of the catalogue.
        fanout: neighbours kept of each node.

    Raises:
        CandidateError: if there is no edge, a product is out of range, or a weight is not finite and positive.
    """
    if not len(edges):
        raise CandidateError("the relation has no edges, so there is no graph to learn from; choose another relation")
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

    if between_products:
        first, second = np.minimum(*ends), np.maximum(*ends)
        keep = first != second
        keys, n_nodes = np.empty(0, dtype=np.uint64), n_products
        first, second, weight = _merge(first[keep], second[keep], weight[keep], n_nodes, largest=True)
    else:
        keys, inverse = np.unique(edges["query_key"].to_numpy(dtype=np.uint64), return_inverse=True)
        n_nodes = n_products + len(keys)
        first, second, weight = _merge(product, (inverse + n_products).astype(np.int32), weight, n_nodes)
        del inverse

    neighbours = np.full((n_nodes, fanout), MISSING, dtype=np.int32)
    weights = np.zeros((n_nodes, fanout), dtype=np.float32)
    if between_products:
        first, second = np.concatenate([first, second]), np.concatenate([second, first])
        _keep_strongest(first, second, np.concatenate([weight, weight]), neighbours, weights)
    else:  # one direction at a time: half the memory
        _keep_strongest(first, second, weight, neighbours, weights)
        _keep_strongest(second, first, weight, neighbours, weights)
    return Neighbourhoods(neighbours, weights, keys, n_products)


def _merge(
    first: np.ndarray, second: np.ndarray, weight: np.ndarray, n_nodes: int, largest: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sum the weights of repeated edges, or keep the largest.

    Sorting by weight within an edge makes the sum independent of the order of the rows.
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
