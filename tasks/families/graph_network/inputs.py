"""Turn the edges and pairs of a fit into what a graph network is trained on: edges by relation, texts, and arrays."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pandas as pd

from esci_tournament.tasks.data.dataset import LOCALES, normalise_query
from esci_tournament.tasks.families.graph_network.neighbourhoods import Neighbourhoods
from esci_tournament.tasks.families.graph_network.spec import GraphNetworkSpec
from esci_tournament.tasks.families.graph_network.training import PairInputs


def edges_by_relation(spec: GraphNetworkSpec, edges: pd.DataFrame) -> list[pd.DataFrame]:
    """Split edges by relation.

    Args:
        spec: names the relations.
        edges: columns as in :class:`FitData`.

    Returns:
        One frame a relation, in the order of the spec, with `query_key` or, between products, `source`.
    """
    if len(spec.relations) == 1:
        return [edges]
    return [_of_relation(edges, one) for one in spec.relations]


def texts_of_nodes(edges: pd.DataFrame, graph: Neighbourhoods) -> list[str]:
    """Return the normalised text of the graph's queries.

    Args:
        edges: the edges that the graph was built from, with columns query and query_key.
        graph: neighbourhoods of one relation or several.

    Returns:
        One text a query, in the order of `graph.query_keys`.
    """
    if not len(graph.query_keys):
        return []
    if "source" in edges.columns:
        edges = edges[edges["source"] < 0]
    _, first = np.unique(edges["query_key"].to_numpy(dtype=np.uint64), return_index=True)
    return [normalise_query(query) for query in edges["query"].iloc[first]]


def distinct_texts(*columns: pd.Series) -> tuple[list[str], np.ndarray]:
    """Return the distinct texts of some columns, and the place of each row's text among them.

    Args:
        *columns: text columns, read one after the other.

    Returns:
        The texts in the order in which they first occur, and int64 (rows of all columns,), index into the texts.

    Example:
        >>> texts, rows = distinct_texts(pd.Series(["lamp", "desk"]), pd.Series(["lamp"]))
        >>> texts, rows.tolist()
        (['lamp', 'desk'], [0, 1, 0])
    """
    codes, values = pd.factorize(np.concatenate([column.to_numpy(dtype=object) for column in columns]))
    return [str(value) for value in values], codes.astype(np.int64)


def texts_in_use(texts: list[str], *frames: pd.DataFrame) -> tuple[list[str], np.ndarray]:
    """Return the product texts that some pairs name, and the place of each pair's product among them.

    Args:
        texts: the text of every product of the catalogue.
        *frames: pairs with a column product (row of the catalogue), read one after the other.

    Returns:
        The texts, and int64 (pairs of all frames,), index into the texts.
    """
    used, rows = np.unique(
        np.concatenate([frame["product"].to_numpy(dtype=np.int64) for frame in frames]), return_inverse=True
    )
    return [texts[row] for row in used], rows


def one_hot(locale: pd.Series) -> np.ndarray:
    """Return the locale of each pair, float32 (n, len(LOCALES)), all 0 for a locale that is not among them."""
    return (np.asarray(locale, object)[:, None] == np.array(LOCALES, object)).astype(np.float32)


def pair_inputs(pairs: pd.DataFrame, graph: Neighbourhoods, query_rows: np.ndarray, overlap: np.ndarray) -> PairInputs:
    """Return what training reads of pairs.

    Args:
        pairs: columns product, query_key, locale and label.
        graph: the graph, in which each pair's own query is looked up.
        query_rows: int64 (n,), row of each pair's query in the table of query vectors.
        overlap: float32 (n, len(OVERLAPS)), what the two texts of each pair share.

    Returns:
        The pairs as arrays, in the same order.
    """
    return PairInputs(
        products=pairs["product"].to_numpy(dtype=np.int64),
        own_queries=graph.query_nodes(pairs["query_key"].to_numpy()),
        queries=query_rows,
        overlap=overlap,
        locale=one_hot(pairs["locale"]),
        labels=pairs["label"].to_numpy(dtype=np.int64),
    )


def run_digest(spec: str, seed: int, texts: str, edges: pd.DataFrame, *frames: pd.DataFrame) -> str:
    """Return a SHA-256 of everything that a training run depends on.

    Args:
        spec: digest of the spec.
        seed: of the run.
        texts: digest of the texts and of their encoder.
        edges: columns product and weight, and query_key or source or both.
        *frames: pairs, columns query_key, product and label.

    Returns:
        64 hex digits.
    """
    digest = hashlib.sha256(json.dumps([spec, seed, texts]).encode())
    for frame in frames:
        for column in ("query_key", "product", "label"):
            digest.update(np.ascontiguousarray(frame[column].to_numpy()).tobytes())
    for column in (*(name for name in ("query_key", "source") if name in edges.columns), "product", "weight"):
        digest.update(np.ascontiguousarray(edges[column].to_numpy()).tobytes())
    return digest.hexdigest()


def _of_relation(edges: pd.DataFrame, relation: str) -> pd.DataFrame:
    """Return the edges of one relation with the columns that one alone has."""
    rows = edges[(edges["relation"] == relation).to_numpy()]
    between_products = (rows["source"] >= 0).all()
    return rows.drop(columns="query_key" if between_products else "source")
