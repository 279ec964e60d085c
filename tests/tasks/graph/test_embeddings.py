"""Layer-wise inference gives what the trees of a mini-batch give."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from registry.specs import GraphNetworkRecipe
from tasks.graph.embeddings import echoes, product_states
from tasks.graph.neighbourhoods import MISSING, build
from tasks.graph.networks import ProductTower
from tasks.graph.subgraphs import trees

N_PRODUCTS, N_QUERIES, WIDTH = 40, 25, 6


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "query_key": rng.integers(0, N_QUERIES, 150).astype(np.uint64),
            "product": rng.integers(0, N_PRODUCTS - 5, 150).astype(np.int32),  # the last five are cold
            "weight": rng.random(150).astype(np.float32) + 0.1,
        }
    )
    graph = build(frame, N_PRODUCTS, 5)
    return graph, rng.normal(size=(graph.n_nodes, WIDTH)).astype(np.float32)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("architecture", ["graphsage", "gcn", "gatv2"])
def test_equals_the_trees(world, tmp_path, architecture: str, layers: int) -> None:
    graph, text = world
    torch.manual_seed(0)
    tower = ProductTower(architecture, GraphNetworkRecipe(hidden_size=8, layers=layers, heads=2), WIDTH).eval()
    layerwise = np.zeros((N_PRODUCTS, 8), dtype=np.float32)
    for rows, states in product_states(tower, graph, text, 4, torch.device("cpu"), tmp_path, chunk=7):
        layerwise[rows] = states
    part = trees(graph, np.arange(N_PRODUCTS), np.full(N_PRODUCTS, MISSING), layers, 4)
    with torch.inference_mode():
        inputs = tower.inputs_of(torch.from_numpy(text[part.nodes]), torch.from_numpy(part.nodes >= N_PRODUCTS))
        arrays = [torch.from_numpy(array) for array in (part.edges, part.strengths, part.degrees)]
        direct = tower(inputs, *arrays, part.nodes_to_depth, part.edges_to_depth).numpy()
    assert np.allclose(layerwise, direct, atol=1e-5)
    assert list(tmp_path.iterdir()) == []  # files in between are gone


def test_gcn_layer_is_torch_geometrics_on_a_whole_graph(world) -> None:
    """With a fan-out that covers everything, our sum over prefixes is GCNConv's symmetric normalisation."""
    from torch_geometric.nn import GCNConv

    from tasks.graph.networks import GcnLayer
    from tasks.graph.subgraphs import neighbours_of

    rng = np.random.default_rng(5)
    frame = pd.DataFrame(
        {"query_key": rng.integers(0, 6, 20).astype(np.uint64), "product": rng.integers(0, 8, 20).astype(np.int32)}
    ).assign(weight=np.float32(1.5))
    graph = build(frame, 8, 20)
    nodes = np.arange(graph.n_nodes)
    rows, others, strengths, degrees = neighbours_of(graph, nodes, np.full(len(nodes), MISSING), 20)
    edges, weights = torch.from_numpy(np.stack([others, rows])), torch.from_numpy(strengths)
    x = torch.randn(graph.n_nodes, 4, generator=torch.Generator().manual_seed(0))
    ours, theirs = GcnLayer(4, 3), GCNConv(4, 3)
    theirs.lin.weight.data, theirs.bias.data = ours.linear.weight.data, ours.linear.bias.data
    with torch.inference_mode():
        assert torch.allclose(
            ours((x, x), edges, weights, torch.from_numpy(degrees)), theirs(x, edges, weights), atol=1e-5
        )


def test_echoes_are_weighted_means_and_zero_without_neighbours(world) -> None:
    graph, text = world
    nodes = np.arange(N_PRODUCTS)
    found = echoes(graph, text, nodes, np.full(N_PRODUCTS, MISSING), fanout=4)
    for node in nodes:
        near, weight = graph.neighbours[node, :4], graph.weights[node, :4]
        valid = near != MISSING
        wanted = np.average(text[near[valid]], axis=0, weights=weight[valid]) if valid.any() else np.zeros(WIDTH)
        assert np.allclose(found[node], wanted, atol=1e-5)
    assert (found[-5:] == 0).all()


def test_echoes_do_not_hear_the_masked_query(world) -> None:
    graph, text = world
    node = 0
    banned = graph.neighbours[node, :1].astype(np.int64)
    louder = text.copy()
    louder[banned] = 1e6
    first, second = (echoes(graph, table, np.array([node]), banned, 4) for table in (text, louder))
    assert np.array_equal(first, second)
