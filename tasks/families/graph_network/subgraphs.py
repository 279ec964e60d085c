"""The part of a graph that a mini-batch needs: one tree of neighbours for each root."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from esci_tournament.tasks.families.graph_network.neighbourhoods import MISSING, Neighbourhoods


@dataclass(frozen=True)
class Subgraph:
    """Trees of neighbours, stored so that every layer works on a prefix of the arrays.

    Attributes:
        nodes: int64 (n_occurrences,), the node of each occurrence, by depth; roots first, in the order given.
        edges: int64 (2, n_edges), from the occurrence of a neighbour to that of its parent, parents ascending.
        strengths: float32 (n_edges,), weight of the edge.
        types: int64 (n_edges,), see :func:`neighbours_of`.
        degrees: float32 (n_occurrences,), 1 + the strengths of the neighbours an occurrence may look at.
        nodes_to_depth: occurrences of depth 0..i, for i = 0..layers.
        edges_to_depth: edges whose parents have depth 0..i, for i = 0..layers-1.
    """

    nodes: np.ndarray
    edges: np.ndarray
    strengths: np.ndarray
    types: np.ndarray
    degrees: np.ndarray
    nodes_to_depth: tuple[int, ...]
    edges_to_depth: tuple[int, ...]


def neighbours_of(
    graph: Neighbourhoods, nodes: np.ndarray, banned: np.ndarray, fanout: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the neighbours of `nodes` that may be looked at, strongest first, at most `fanout` of each and relation.

    A graph that was built with one neighbour to spare replaces the banned one by the next.

    Args:
        graph: neighbourhoods of all nodes.
        nodes: int (n,).
        banned: int (n,), a node that row may not look at, or MISSING.
        fanout: neighbours used of each node and relation.

    Returns:
        Five arrays, the first four with an entry for each neighbour found: its row in `nodes`, int64 ascending; the
        neighbour, int64; the weight of its edge, float32; the edge's type, int64, twice the relation's number, plus 1
        when the neighbour is a query. The fifth is 1 + the weights of each of `nodes`, float32 (n,).
    """
    neighbours = np.asarray(graph.neighbours[nodes])
    allowed = (neighbours != MISSING) & (neighbours != banned[:, None])
    if graph.fanout > fanout:
        apart = allowed.reshape(len(nodes), graph.relations, graph.fanout)
        allowed = (apart & (np.cumsum(apart, axis=2) <= fanout)).reshape(allowed.shape)
    strengths = np.asarray(graph.weights[nodes]) * allowed
    rows, columns = np.nonzero(allowed)
    degrees = 1 + strengths.sum(axis=1, dtype=np.float32)
    found = neighbours[rows, columns].astype(np.int64)
    types = 2 * (columns // graph.fanout) + (found >= graph.n_products)
    return rows, found, strengths[rows, columns], types, degrees


def trees(
    graph: Neighbourhoods,
    roots: np.ndarray,
    banned: np.ndarray,
    layers: int,
    fanout: int,
    isolated: np.ndarray | None = None,
) -> Subgraph:
    """Return the neighbours of the roots up to `layers` hops away, without each root's banned node.

    In training, the banned node is the query of the root's own pair: an edge from it says that the product was shown or
    clicked for this very query, which is never known of a held-out query. It is banned at every hop, and it
    leaves no trace in degrees either.

    Args:
        graph: neighbourhoods of all nodes.
        roots: int (n,).
        banned: int (n,), a node that the tree of that root may not hold, or MISSING.
        layers: hops.
        fanout: neighbours used of each occurrence and relation.
        isolated: bool (n,), roots that are shown without any neighbour, as a product without edges is.

    Returns:
        One tree for each root, in their order.
    """
    nodes, bans = [np.asarray(roots, dtype=np.int64)], np.asarray(banned, dtype=np.int64)
    sources, targets, strengths, types, degrees = [], [], [], [], []
    nodes_to_depth, first = [len(roots)], 0
    edges_to_depth: list[int] = []
    for hop in range(layers):
        rows, children, strength, kind, degree = neighbours_of(graph, nodes[-1], bans, fanout)
        if hop == 0 and isolated is not None:
            keep = ~isolated[rows]
            rows, children, strength, kind = rows[keep], children[keep], strength[keep], kind[keep]
            degree = np.where(isolated, np.float32(1), degree)
        sources.append(nodes_to_depth[-1] + np.arange(len(children)))
        targets.append(first + rows)
        strengths.append(strength)
        types.append(kind)
        degrees.append(degree)
        first = nodes_to_depth[-1]
        nodes.append(children)
        bans = bans[rows]
        nodes_to_depth.append(first + len(children))
        edges_to_depth.append(len(children) + (edges_to_depth[-1] if edges_to_depth else 0))
    degrees.append(neighbours_of(graph, nodes[-1], bans, fanout)[-1])
    return Subgraph(
        nodes=np.concatenate(nodes),
        edges=np.stack([np.concatenate(sources), np.concatenate(targets)]),
        strengths=np.concatenate(strengths),
        types=np.concatenate(types),
        degrees=np.concatenate(degrees),
        nodes_to_depth=tuple(nodes_to_depth),
        edges_to_depth=tuple(edges_to_depth),
    )
