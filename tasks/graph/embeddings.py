"""States of all products of a graph, layer by layer: each node is computed once a layer, not once a tree."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from tasks.graph.neighbourhoods import MISSING, Neighbourhoods
from tasks.graph.networks import ProductTower
from tasks.graph.subgraphs import neighbours_of

_CHUNK = 16_384


def product_states(
    tower: ProductTower,
    graph: Neighbourhoods,
    text: np.ndarray,
    fanout: int,
    device: torch.device,
    work: Path,
    chunk: int = _CHUNK,
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield rows of products and their states after the last layer, float32 (rows, hidden_size).

    Layers in between are kept in memory-mapped files under `work`, removed at the end.

    Args:
        tower: the trained module.
        graph: neighbourhoods of all nodes.
        text: float16 or float32 (n_nodes, text_dimensions), may be memory-mapped.
        fanout: neighbours used of each node.
        chunk: nodes computed at a time.
    """
    tower.eval()
    work.mkdir(parents=True, exist_ok=True)
    depth = len(tower.layers)
    with tempfile.TemporaryDirectory(dir=work, prefix="layers-") as folder:
        degrees = np.concatenate(
            [neighbours_of(graph, nodes, _nobody(nodes), fanout)[3] for nodes in _chunks(graph.n_nodes, chunk)]
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


def echoes(graph: Neighbourhoods, text: np.ndarray, nodes: np.ndarray, banned: np.ndarray, fanout: int) -> np.ndarray:
    """Return the mean text of each node's neighbours, weighted by strength, float32 (n, text_dimensions); 0 if none."""
    rows, neighbours, strengths, degrees = neighbours_of(graph, nodes, banned, fanout)
    result = np.zeros((len(nodes), text.shape[1]), dtype=np.float32)
    if len(rows):
        weighted = np.asarray(text[neighbours], dtype=np.float32) * (strengths / (degrees[rows] - 1))[:, None]
        starts = np.flatnonzero(np.concatenate([[True], rows[1:] != rows[:-1]]))
        result[rows[starts]] = np.add.reduceat(weighted, starts, axis=0)
    return result


@torch.inference_mode()
def _one_step(
    tower: ProductTower,
    number: int,
    graph: Neighbourhoods,
    text: np.ndarray,
    before: np.ndarray | None,
    degrees: np.ndarray,
    nodes: np.ndarray,
    fanout: int,
    device: torch.device,
) -> np.ndarray:
    rows, neighbours, strengths, _ = neighbours_of(graph, nodes, _nobody(nodes), fanout)
    # Neighbours are shared, queries above all: a source is read and transformed once a chunk.
    shared, place = np.unique(neighbours, return_inverse=True)
    sources = np.concatenate([nodes, shared])

    def inputs(chosen: np.ndarray) -> torch.Tensor:
        vectors = torch.from_numpy(np.asarray(text[chosen], dtype=np.float32)).to(device)
        return tower.inputs_of(vectors, torch.from_numpy(chosen >= graph.n_products).to(device))

    own = inputs(nodes)
    hidden = inputs(sources) if before is None else torch.from_numpy(np.asarray(before[sources])).to(device)
    edges = np.stack([len(nodes) + place, rows])
    arrays = [torch.from_numpy(array).to(device) for array in (edges, strengths, degrees[sources])]
    return tower.step(number, hidden, own, *arrays).cpu().numpy()


def _chunks(total: int, size: int) -> Iterator[np.ndarray]:
    for start in range(0, total, size):
        yield np.arange(start, min(start + size, total), dtype=np.int64)


def _nobody(nodes: np.ndarray) -> np.ndarray:
    return np.full(len(nodes), MISSING, dtype=np.int64)
