"""Bring a fitted graph network up to date with other edges: only what a change can reach is computed anew."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from esci_tournament.registry.errors import CandidateError
from esci_tournament.tasks.data.dataset import normalise_query
from esci_tournament.tasks.families.graph_network.catalogue import EmbeddingCatalogue
from esci_tournament.tasks.families.graph_network.embeddings import echoes, product_states, refreshed_states
from esci_tournament.tasks.families.graph_network.encoders import Encoder, product_texts
from esci_tournament.tasks.families.graph_network.memory import (
    GraphMemory,
    NodeText,
    Relation,
    renumbered,
    texts_of_queries,
)
from esci_tournament.tasks.families.graph_network.neighbourhoods import MISSING, Neighbourhoods
from esci_tournament.tasks.families.graph_network.networks import ProductTower
from esci_tournament.tasks.families.product_keys import identities

_CHUNK = 8192


@dataclass(frozen=True)
class Refreshed:
    """A graph network's memory and catalogue after a change.

    Attributes:
        memory: the graph now.
        catalogue: all products now, new ones after the old ones.
        changed: how many products were computed anew.
    """

    memory: GraphMemory
    catalogue: EmbeddingCatalogue
    changed: int


def refreshed(
    name: str,
    tower: ProductTower,
    encoder: Encoder,
    memory: GraphMemory,
    catalogue: EmbeddingCatalogue,
    edges: list[pd.DataFrame],
    products: pd.DataFrame,
    fanout: int,
    device: torch.device,
) -> Refreshed:
    """Return memory and catalogue for all edges as they are now.

    Args:
        name: of the candidate, for messages.
        tower: the candidate's message passing, on `device`.
        encoder: the candidate's text encoder.
        memory: the graph before the change; it may be memory-mapped and stays as it is.
        catalogue: the products before the change; it may be memory-mapped and stays as it is.
        edges: one frame a relation, in the order of the spec; `product` and `source` are rows of `products`.
        products: the catalogue as it is now, in any order; a product whose text has changed is another product.
        fanout: neighbours used of each node and relation.
        device: where to compute.

    Returns:
        The new memory and catalogue; the old ones when nothing has changed.

    Raises:
        CandidateError: if a relation has no edges, an embedding is not finite, or the catalogue does not hold all
            products of the graph.
    """
    before = memory.relations[0].graph.n_products
    if len(catalogue.states) != before:
        raise CandidateError(
            f"{name}: {len(catalogue.states)} products are held of the graph's {before}; refresh the whole model"
        )
    texts = product_texts(products, np.arange(len(products)))
    identity = identities(products["product_id"], products["locale"].astype(str), texts)
    rows = catalogue.find(identity)
    fresh = np.flatnonzero(rows < 0)
    rows[fresh] = before + np.arange(len(fresh))
    total = before + len(fresh)

    relations, touched, keys = _refreshed_relations(memory, [renumbered(part, rows) for part in edges], total)
    if not len(touched) and not len(keys) and not len(fresh):
        return Refreshed(memory, catalogue, 0)
    memory = GraphMemory(relations, _query_text(memory, relations, edges, encoder))
    whole = memory.whole
    fresh_text = encoder.encode([texts[row] for row in fresh]).astype(np.float16)
    text = NodeText(catalogue.texts, fresh_text, memory.query_text)
    nodes = whole.query_nodes(keys)
    changed = np.unique(np.concatenate([touched, nodes[nodes != MISSING], np.arange(before, total)]))
    reached, states = refreshed_states(tower, whole, text, fanout, device, changed)
    if not np.isfinite(states).all():
        raise CandidateError(f"{name}: refreshed product embeddings are not finite; the old ones stay in use")
    near = np.union1d(touched, np.arange(before, total))
    tables = EmbeddingCatalogue.make(
        np.concatenate([catalogue.identity, identity[fresh]]),
        _updated(catalogue.states, total, reached, states),
        _updated(catalogue.texts, total, np.arange(before, total), fresh_text),
        _updated(catalogue.echoes, total, near, _echoes(whole, text, near, fanout)),
    )
    return Refreshed(memory, tables, len(reached))


def recomputed(
    tower: ProductTower, memory: GraphMemory, held: EmbeddingCatalogue, fanout: int, device: torch.device, work: Path
) -> EmbeddingCatalogue:
    """Return a catalogue whose states and echoes are computed anew from its texts and the graph.

    Args:
        tower: the candidate's message passing, on `device`.
        memory: the graph.
        held: a catalogue whose keys, rows and texts are sound; of its states only the width is read.
        fanout: neighbours used of each node and relation.
        device: where to compute.
        work: a folder for temporary files.

    Returns:
        A catalogue with the keys, rows and texts of `held`.
    """
    graph = memory.whole
    text = NodeText(held.texts, memory.query_text)
    states = np.empty((graph.n_products, held.states.shape[1]), dtype=np.float16)
    for rows, part in product_states(tower, graph, text, fanout, device, work):
        states[rows] = part
    echo = _echoes(graph, text, np.arange(graph.n_products), fanout).astype(np.float16)
    return EmbeddingCatalogue(held.keys, held.rows, states, held.texts, echo)


def _refreshed_relations(
    memory: GraphMemory, edges: list[pd.DataFrame], total: int
) -> tuple[tuple[Relation, ...], np.ndarray, np.ndarray]:
    found = [relation.refreshed(part, total) for relation, part in zip(memory.relations, edges, strict=True)]
    touched = np.unique(np.concatenate([products for _, products, _ in found]))
    keys = np.unique(np.concatenate([changed for _, _, changed in found]))
    return tuple(relation for relation, _, _ in found), touched, keys


def _query_text(
    memory: GraphMemory, relations: tuple[Relation, ...], edges: list[pd.DataFrame], encoder: Encoder
) -> np.ndarray:
    """Return the text of all queries that the graphs have now, float16; only new ones are encoded."""
    old, new = memory.keys, GraphMemory(relations, memory.query_text).keys
    result = np.empty((len(new), memory.query_text.shape[1]), dtype=np.float16)
    known = np.isin(new, old)
    result[known] = memory.query_text[np.searchsorted(old, new[known])]
    if not known.all():
        wording = texts_of_queries(edges, new[~known])
        result[~known] = encoder.encode([normalise_query(text) for text in wording])
    return result


def _echoes(graph: Neighbourhoods, text: NodeText, nodes: np.ndarray, fanout: int) -> np.ndarray:
    parts = [np.empty((0, text.shape[1]), dtype=np.float32)]
    for start in range(0, len(nodes), _CHUNK):
        part = nodes[start : start + _CHUNK]
        parts.append(echoes(graph, text, part, np.full(len(part), MISSING), fanout))
    return np.concatenate(parts)


def _updated(table: np.ndarray, total: int, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    result = np.empty((total, table.shape[1]), dtype=table.dtype)
    result[: len(table)] = table
    result[rows] = values
    return result
