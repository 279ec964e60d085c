"""The graph that a fitted graph network keeps, so that it can be refreshed when edges change."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from esci_tournament.registry.errors import CandidateError
from esci_tournament.registry.files import write_atomically
from esci_tournament.tasks.families.graph_network.neighbourhoods import Neighbourhoods, refresh_at, stack

_FOLDER, _CARD = "graph", "graph.json"
_PRODUCTS, _QUERIES, _TEXT = "products_digest.npy", "queries_digest.npy", "query_text.npy"


@dataclass(frozen=True)
class Relation:
    """One relation's graph, and a digest of the edges at each node: a digest that differs means a changed edge.

    Attributes:
        graph: neighbourhoods.
        products: uint64 (n_products,), digest of the edges at each product.
        queries: uint64 (n_queries,), digest of the edges at each query, in the order of `graph.query_keys`.
    """

    graph: Neighbourhoods
    products: np.ndarray
    queries: np.ndarray

    @classmethod
    def of(cls, graph: Neighbourhoods, edges: pd.DataFrame) -> Relation:
        """Return the relation of a graph that was built from `edges`.

        Args:
            graph: neighbourhoods of one relation.
            edges: as :func:`esci_tournament.tasks.families.graph_network.neighbourhoods.build` takes them.

        Returns:
            The graph with the digests of its edges.
        """
        return cls(graph, *digests(edges, graph.n_products, graph.query_keys))

    def refreshed(self, edges: pd.DataFrame, n_products: int) -> tuple[Relation, np.ndarray, np.ndarray]:
        """Return the relation for other edges; only nodes at the ends of changed edges are computed anew.

        Args:
            edges: all edges as they are now, columns as in :meth:`of`.
            n_products: rows of the catalogue now; products may have been added at its end.

        Returns:
            The relation, the products whose edges have changed, int64 ascending, and the query keys whose edges have
            changed, uint64 ascending. The relation itself when nothing has changed.

        Raises:
            CandidateError: as :func:`esci_tournament.tasks.families.graph_network.neighbourhoods.refresh`.
        """
        between = "source" in edges.columns
        keys = self.graph.query_keys if between else np.unique(edges["query_key"].to_numpy(np.uint64))
        products, queries = digests(edges, n_products, keys)
        before = np.zeros(n_products, dtype=np.uint64)
        before[: len(self.products)] = self.products
        touched = np.flatnonzero(products != before)
        every = np.union1d(self.graph.query_keys, keys)
        old, new = (np.zeros(len(every), dtype=np.uint64) for _ in range(2))
        old[np.searchsorted(every, self.graph.query_keys)] = self.queries
        new[np.searchsorted(every, keys)] = queries
        changed_keys = every[old != new]
        if not len(touched) and not len(changed_keys) and n_products == self.graph.n_products:
            return self, touched, changed_keys
        graph, _ = refresh_at(self.graph, edges, touched, changed_keys, n_products)
        return Relation(graph, products, queries), touched, changed_keys


@dataclass(frozen=True)
class GraphMemory:
    """All relations of a graph network, and the text of their queries.

    Attributes:
        relations: in the order of the spec.
        query_text: float16 (n_queries, text_dimensions), of the queries of all relations by ascending key.
    """

    relations: tuple[Relation, ...]
    query_text: np.ndarray

    @property
    def whole(self) -> Neighbourhoods:
        """The graph for message passing: all relations side by side."""
        graphs = [relation.graph for relation in self.relations]
        return graphs[0] if len(graphs) == 1 else stack(graphs)

    @property
    def keys(self) -> np.ndarray:
        """Keys of all queries, uint64, ascending."""
        keys = [relation.graph.query_keys for relation in self.relations]
        return np.asarray(keys[0]) if len(keys) == 1 else np.unique(np.concatenate(keys))

    def save(self, folder: Path) -> None:
        """Write relations, digests and query texts into `graph/` below a model's folder."""
        place = folder / _FOLDER
        for number, relation in enumerate(self.relations):
            relation.graph.save(place / str(number))
            np.save(place / str(number) / _PRODUCTS, relation.products)
            np.save(place / str(number) / _QUERIES, relation.queries)
        np.save(place / _TEXT, self.query_text)
        write_atomically(place / _CARD, json.dumps({"relations": len(self.relations)}).encode())

    @classmethod
    def load(cls, folder: Path) -> GraphMemory | None:
        """Memory-map what :meth:`save` wrote.

        Args:
            folder: a model's folder.

        Returns:
            The memory, or None for a model that was saved without its graph.

        Raises:
            OSError: if a file is missing.
            ValueError: if a file is damaged, or belongs to another graph.
            KeyError: if graph.json lacks the number of relations.
        """
        place = folder / _FOLDER
        if not (place / _CARD).is_file():
            return None
        count = json.loads((place / _CARD).read_text(encoding="utf-8"))["relations"]
        relations = []
        for number in range(count):
            graph = Neighbourhoods.load(place / str(number))
            arrays = [_mapped(place / str(number) / name) for name in (_PRODUCTS, _QUERIES)]
            if [len(array) for array in arrays] != [graph.n_products, len(graph.query_keys)]:
                raise ValueError(f"{place / str(number)} holds the digests of another graph")
            relations.append(Relation(graph, *arrays))
        return cls(tuple(relations), _mapped(place / _TEXT))


class NodeText:
    """The text of all nodes without a copy; indexing with an int array gathers float32 rows.

    Args:
        *parts: float16 or float32 (rows, text_dimensions) each, numbered one after the other: products, then queries.

    Attributes:
        shape: (n_nodes, text_dimensions).
    """

    def __init__(self, *parts: np.ndarray) -> None:
        self._parts = parts
        self._starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
        self.shape = (int(self._starts[-1]), parts[0].shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, nodes: np.ndarray) -> np.ndarray:
        nodes = np.asarray(nodes)
        result = np.empty((len(nodes), self.shape[1]), dtype=np.float32)
        for number, part in enumerate(self._parts):
            here = (nodes >= self._starts[number]) & (nodes < self._starts[number + 1])
            if here.any():
                result[here] = part[nodes[here] - self._starts[number]]
        return result


def digests(edges: pd.DataFrame, n_products: int, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a digest of the edges at each product and at each query.

    A digest is the sum, modulo 2**64, of a hash of the other end and the weight of each edge, so the order of the edges
    does not matter; it is 0 for a node without edges.

    Args:
        edges: as :func:`esci_tournament.tasks.families.graph_network.neighbourhoods.build` takes them.
        n_products: rows of the catalogue.
        keys: uint64 (n_queries,), ascending, all that the edges name.

    Returns:
        uint64 (n_products,) and uint64 (n_queries,).
    """
    product = edges["product"].to_numpy(dtype=np.int64)
    weight = edges["weight"].to_numpy(dtype=np.float32).view(np.uint32).astype(np.uint64)
    at_products, at_queries = np.zeros(n_products, dtype=np.uint64), np.zeros(len(keys), dtype=np.uint64)
    if "source" in edges.columns:
        source = edges["source"].to_numpy(dtype=np.int64)
        np.add.at(at_products, product, _mix(source.astype(np.uint64), weight))
        np.add.at(at_products, source, _mix(product.astype(np.uint64), weight))
        return at_products, at_queries
    key = edges["query_key"].to_numpy(dtype=np.uint64)
    np.add.at(at_products, product, _mix(key, weight))
    np.add.at(at_queries, np.searchsorted(keys, key), _mix(product.astype(np.uint64), weight))
    return at_products, at_queries


def renumbered(edges: pd.DataFrame, rows: np.ndarray) -> pd.DataFrame:
    """Return the edges with other numbers of products.

    Args:
        edges: column `product` int32, and `source` int32 if the relation is between products (negative: no product).
        rows: int64, the new number of each old one.

    Returns:
        A copy with `product` and `source` replaced, int32; all other columns as they were.

    Example:
        >>> edges = pd.DataFrame({"product": [0, 1], "weight": [1.0, 2.0]})
        >>> renumbered(edges, np.array([5, 3]))["product"].tolist()
        [5, 3]
    """
    changed = {"product": rows[edges["product"].to_numpy(dtype=np.int64)].astype(np.int32)}
    if "source" in edges.columns:
        source = edges["source"].to_numpy(dtype=np.int64)
        changed["source"] = np.where(source < 0, source, rows[np.maximum(source, 0)]).astype(np.int32)
    return edges.assign(**changed)


def texts_of_queries(edges: Sequence[pd.DataFrame], keys: np.ndarray) -> list[str]:
    """Return the query text of each key.

    Args:
        edges: one frame a relation; those with a column `query_key` have the text in `query`.
        keys: uint64, ascending.

    Returns:
        One text for each key, in their order.

    Raises:
        CandidateError: if a key is in none of the edges.
    """
    texts: dict[int, str] = {}
    for part in edges:
        if "query_key" in part.columns and len(part):
            known, first = np.unique(part["query_key"].to_numpy(dtype=np.uint64), return_index=True)
            wanted = np.isin(known, keys)
            texts |= dict(zip(known[wanted].tolist(), part["query"].iloc[first[wanted]], strict=True))
    if missing := [key for key in keys.tolist() if key not in texts]:
        raise CandidateError(f"{len(missing)} queries of the graph have no text in the edges; pass all edges again")
    return [texts[key] for key in keys.tolist()]


def _mapped(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _mix(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return SplitMix64's output function (Steele, Lea and Flood 2014) of both, uint64, never 0 but by chance."""
    state = (values + np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xD1B54A32D192ED03) + weight + np.uint64(1)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
