"""States of all products of a graph, layer by layer: each node is computed once a layer, not once a tree."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from esci_tournament.tasks.families.graph_network.memory import NodeText
from esci_tournament.tasks.families.graph_network.neighbourhoods import MISSING, Neighbourhoods
from esci_tournament.tasks.families.graph_network.networks import ProductTower
from esci_tournament.tasks.families.graph_network.subgraphs import neighbours_of, trees

_CHUNK = 16_384


def product_states(
    tower: ProductTower,
    graph: Neighbourhoods,
    text: np.ndarray | NodeText,
    fanout: int,
    device: torch.device,
    work: Path,
    chunk: int = _CHUNK,
) -> Iterator[tuple[slice, np.ndarray]]:
    """Compute the states of all products after the last layer.

    States in between are kept in memory-mapped files under `work`, removed at the end.

    Args:
        tower: the trained module, on `device`; it is put into evaluation mode.
        graph: neighbourhoods of all nodes.
        text: float16 or float32 (n_nodes, text_dimensions), may be memory-mapped, or gathers rows.
        fanout: neighbours used of each node and relation.
        device: where to compute.
        work: a folder for temporary files of n_nodes * hidden_size * 4 bytes a layer; made if need be.
        chunk: nodes computed at a time.

    Yields:
        Rows of products, ascending and without gaps, and their states, float32 (rows, hidden_size).
    """
    tower.eval()
    work.mkdir(parents=True, exist_ok=True)
    depth = len(tower.layers)
    with tempfile.TemporaryDirectory(dir=work, prefix="layers-") as folder:
        degrees = np.concatenate(
            [neighbours_of(graph, nodes, _nobody(nodes), fanout)[-1] for nodes in _chunks(graph.n_nodes, chunk)]
        )
        before: np.ndarray | None = None
        for number in range(depth):
            last = number == depth - 1
            after = None
            for nodes in _chunks(graph.n_products if last else graph.n_nodes, chunk):
                states = _one_step(tower, number, graph, text, before, degrees, nodes, fanout, device)
                if last:
                    yield slice(int(nodes[0]), int(nodes[-1]) + 1), states
                    continue
                if after is None:
                    after = np.lib.format.open_memmap(
                        Path(folder) / f"{number}.npy", "w+", np.float32, (graph.n_nodes, states.shape[1])
                    )
                after[nodes[0] : nodes[-1] + 1] = states
            before = after


def echoes(
    graph: Neighbourhoods, text: np.ndarray | NodeText, nodes: np.ndarray, banned: np.ndarray, fanout: int
) -> np.ndarray:
    """Return the mean text of each node's neighbours, weighted by strength.

    Args:
        graph: neighbourhoods of all nodes.
        text: float16 or float32 (n_nodes, text_dimensions), may be memory-mapped, or gathers rows.
        nodes: int (n,).
        banned: int (n,), a node to leave out of that row's mean, or MISSING.
        fanout: neighbours used of each node and relation.

    Returns:
        float32 (n, text_dimensions), 0 for a node without neighbours.
    """
    rows, neighbours, strengths, _, degrees = neighbours_of(graph, nodes, banned, fanout)
    result = np.zeros((len(nodes), text.shape[1]), dtype=np.float32)
    if len(rows):
        weighted = np.asarray(text[neighbours], dtype=np.float32) * (strengths / (degrees[rows] - 1))[:, None]
        starts = np.flatnonzero(np.concatenate([[True], rows[1:] != rows[:-1]]))
        result[rows[starts]] = np.add.reduceat(weighted, starts, axis=0)
    return result


def affected_products(graph: Neighbourhoods, changed: np.ndarray, hops: int, fanout: int) -> np.ndarray:
    """Return the products whose state after `hops` layers may differ because nodes have changed.

    Args:
        graph: neighbourhoods after the change.
        changed: int64, nodes whose text has changed, or whose neighbours have
            (see :func:`esci_tournament.tasks.families.graph_network.neighbourhoods.refresh`).
        hops: layers of message passing.
        fanout: neighbours used of each node and relation.

    Returns:
        int64, ascending product numbers.
    """
    used = np.flatnonzero(np.arange(graph.neighbours.shape[1]) % graph.fanout < fanout)
    reached = np.zeros(graph.n_nodes + 1, dtype=bool)  # its last place stands for MISSING, which is -1
    reached[changed] = True
    for _ in range(hops):
        before = reached.copy()
        for nodes in _chunks(graph.n_nodes, _CHUNK):
            reached[nodes] |= before[graph.neighbours[nodes[0] : nodes[-1] + 1][:, used]].any(axis=1)
    return np.flatnonzero(reached[: graph.n_products])


@torch.inference_mode()
def refreshed_states(
    tower: ProductTower,
    graph: Neighbourhoods,
    text: np.ndarray | NodeText,
    fanout: int,
    device: torch.device,
    changed: np.ndarray,
    chunk: int = 256,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the products within reach of a change, and their states.

    The states are what :func:`product_states` would give, computed from the trees below these products only; all other
    products keep the state they have.

    Args:
        tower: the trained module, on `device`; it is put into evaluation mode.
        graph: neighbourhoods of all nodes after the change.
        text: float16 or float32 (n_nodes, text_dimensions), may be memory-mapped, or gathers rows.
        fanout: neighbours used of each node and relation.
        device: where to compute.
        changed: int64, nodes, as in :func:`affected_products`.
        chunk: products computed at a time.

    Returns:
        The products, int64 (n,), ascending, and their states, float32 (n, hidden_size).
    """
    tower.eval()
    layers = len(tower.layers)
    products = affected_products(graph, changed, layers, fanout)
    parts = [np.empty((0, tower.outputs), dtype=np.float32)]
    for start in range(0, len(products), chunk):
        roots = products[start : start + chunk]
        part = trees(graph, roots, _nobody(roots), layers, fanout)
        vectors = torch.from_numpy(np.asarray(text[part.nodes], dtype=np.float32)).to(device)
        inputs = tower.inputs_of(vectors, torch.from_numpy(part.nodes >= graph.n_products).to(device))
        facts = (part.edges, part.strengths, part.degrees, part.types)
        arrays = [torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in facts]
        parts.append(tower(inputs, *arrays, part.nodes_to_depth, part.edges_to_depth).cpu().numpy())
    return products, np.concatenate(parts)


@torch.inference_mode()
def states_without_neighbours(tower: ProductTower, vectors: np.ndarray, device: torch.device) -> np.ndarray:
    """Return the states of products without edges, computed from their text alone.

    Args:
        tower: the trained module, on `device` and in evaluation mode.
        vectors: float32 (n, text_dimensions).
        device: where to compute.

    Returns:
        float32 (n, hidden_size).
    """
    total, layers = len(vectors), len(tower.layers)
    inputs = tower.inputs_of(torch.from_numpy(vectors).to(device), torch.zeros(total, device=device))
    edges = torch.empty((2, 0), dtype=torch.int64, device=device)
    nothing, ones = torch.empty(0, device=device), torch.ones(total, device=device)
    return tower(inputs, edges, nothing, ones, edges[0], (total,) * (layers + 1), (0,) * layers).cpu().numpy()


@torch.inference_mode()
def _one_step(
    tower: ProductTower,
    number: int,
    graph: Neighbourhoods,
    text: np.ndarray | NodeText,
    before: np.ndarray | None,
    degrees: np.ndarray,
    nodes: np.ndarray,
    fanout: int,
    device: torch.device,
) -> np.ndarray:
    rows, neighbours, strengths, types, _ = neighbours_of(graph, nodes, _nobody(nodes), fanout)
    # Neighbours are shared, queries above all: a source is read and transformed once a chunk.
    shared, place = np.unique(neighbours, return_inverse=True)
    sources = np.concatenate([nodes, shared])

    def inputs(chosen: np.ndarray) -> torch.Tensor:
        vectors = torch.from_numpy(np.asarray(text[chosen], dtype=np.float32)).to(device)
        return tower.inputs_of(vectors, torch.from_numpy(chosen >= graph.n_products).to(device))

    own = inputs(nodes)
    hidden = inputs(sources) if before is None else torch.from_numpy(np.asarray(before[sources])).to(device)
    edges = np.stack([len(nodes) + place, rows])
    arrays = [
        torch.from_numpy(array).to(device)
        for array in (edges, strengths, degrees[sources], types, sources >= graph.n_products)
    ]
    return tower.step(number, hidden, own, *arrays).cpu().numpy()


def _chunks(total: int, size: int) -> Iterator[np.ndarray]:
    for start in range(0, total, size):
        yield np.arange(start, min(start + size, total), dtype=np.int64)


def _nobody(nodes: np.ndarray) -> np.ndarray:
    return np.full(len(nodes), MISSING, dtype=np.int64)
