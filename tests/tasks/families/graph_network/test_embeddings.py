"""Layer-wise inference gives the same results as mini-batch trees."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from esci_tournament.tasks.families.graph_network.embeddings import echoes, product_states, refreshed_states
from esci_tournament.tasks.families.graph_network.neighbourhoods import MISSING, build, refresh, stack
from esci_tournament.tasks.families.graph_network.networks import ProductTower
from esci_tournament.tasks.families.graph_network.relational import HgtLayer
from esci_tournament.tasks.families.graph_network.spec import GraphNetworkRecipe
from esci_tournament.tasks.families.graph_network.subgraphs import neighbours_of, trees

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


@pytest.fixture(scope="module")
def relational(world):
    """The same graph and one between products, side by side."""
    rng = np.random.default_rng(4)
    ends = rng.integers(0, N_PRODUCTS - 5, (2, 60)).astype(np.int32)
    frame = pd.DataFrame({"source": ends[0], "product": ends[1], "weight": np.float32(1)})
    graph = stack([world[0], build(frame, N_PRODUCTS, 5)])
    return graph, world[1]


def tower_of(architecture: str, layers: int, relations: int) -> ProductTower:
    torch.manual_seed(0)
    recipe = GraphNetworkRecipe(hidden_size=8, layers=layers, heads=2)
    return ProductTower(architecture, recipe, WIDTH, relations).eval()


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("architecture", ["graphsage", "gcn", "gatv2", "rgcn", "hgt"])
def test_equals_the_trees(world, relational, tmp_path, architecture: str, layers: int) -> None:
    graph, text = relational if architecture in ("rgcn", "hgt") else world
    tower = tower_of(architecture, layers, graph.relations)
    layerwise = np.zeros((N_PRODUCTS, 8), dtype=np.float32)
    for rows, states in product_states(tower, graph, text, 4, torch.device("cpu"), tmp_path, chunk=7):
        layerwise[rows] = states
    part = trees(graph, np.arange(N_PRODUCTS), np.full(N_PRODUCTS, MISSING), layers, 4)
    with torch.inference_mode():
        inputs = tower.inputs_of(torch.from_numpy(text[part.nodes]), torch.from_numpy(part.nodes >= N_PRODUCTS))
        arrays = [torch.from_numpy(array) for array in (part.edges, part.strengths, part.degrees, part.types)]
        direct = tower(inputs, *arrays, part.nodes_to_depth, part.edges_to_depth).numpy()
    assert np.allclose(layerwise, direct, atol=1e-5)
    assert list(tmp_path.iterdir()) == []  # files in between are gone


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("architecture", ["gcn", "hgt"])
def test_what_a_change_reaches_is_computed_anew_and_nothing_else(tmp_path, architecture: str, layers: int) -> None:
    """The refreshed table is that of a computation from scratch; most products are not touched."""
    products, queries = 300, 200
    rng = np.random.default_rng(8)
    before = pd.DataFrame(
        {
            "query_key": rng.integers(0, queries, 260).astype(np.uint64),
            "product": rng.integers(0, products, 260).astype(np.int32),
            "weight": rng.random(260).astype(np.float32) + 0.1,
        }
    )
    came = before.iloc[:2].assign(product=np.array([7, 11], dtype=np.int32), weight=np.float32(9))
    after = pd.concat([before.iloc[1:], came, came.assign(query_key=np.uint64(999))], ignore_index=True)
    changed = pd.concat([before.iloc[:1], came, came.assign(query_key=np.uint64(999))])
    old = build(before, products, 4)
    new, nodes = refresh(old, after, changed)

    def text_of(graph):  # of a node, whatever its number is
        names = np.concatenate([np.arange(products), 10_000 + graph.query_keys.astype(np.float64)])
        return np.cos(np.outer(names + 1, np.arange(1, WIDTH + 1))).astype(np.float32)

    tower, cpu = tower_of(architecture, layers, 1), torch.device("cpu")
    tables = []
    for graph in (old, new):
        table = np.zeros((products, 8), dtype=np.float32)
        for rows, states in product_states(tower, graph, text_of(graph), 4, cpu, tmp_path):
            table[rows] = states
        tables.append(table)
    reached, states = refreshed_states(tower, new, text_of(new), 4, cpu, nodes, chunk=5)
    refreshed = tables[0].copy()
    refreshed[reached] = states
    assert np.allclose(refreshed, tables[1], atol=1e-5)
    assert 0 < len(reached) < products / 3


def test_hgt_layer_is_its_formula(relational) -> None:
    """Weights applied at the targets give what the paper applies edge by edge."""
    graph, _ = relational
    nodes = np.arange(graph.n_nodes)
    rows, others, strengths, types, degrees = neighbours_of(graph, nodes, np.full(len(nodes), MISSING), 3)
    torch.manual_seed(0)
    layer = HgtLayer(4, 6, heads=2, types=4)
    layer.prior.data.uniform_(0.5, 2)
    x, is_query = torch.randn(graph.n_nodes, 4), torch.from_numpy(nodes >= N_PRODUCTS)
    edges = torch.from_numpy(np.stack([others, rows]))
    facts = [torch.from_numpy(array) for array in (strengths, degrees, types)]
    with torch.inference_mode():
        found = layer((x, x), edges, *facts, is_query)
        key, query, value = (one(x, is_query).view(-1, 2, 3) for one in (layer.keys, layer.queries, layer.values))
        for node in (0, 3, N_PRODUCTS, N_PRODUCTS + 9):
            mine = np.flatnonzero(rows == node)
            total = torch.zeros(2, 3)
            for head in range(2):
                scores = torch.stack(
                    [
                        key[others[e], head]
                        @ layer.attention[types[e], head]
                        @ query[node, head]
                        * layer.prior[types[e], head]
                        / 3**0.5
                        for e in mine
                    ]
                ).softmax(0)
                for share, e in zip(scores, mine, strict=True):
                    total[head] += share * (value[others[e], head] @ layer.messages[types[e], head])
            kind = layer.update.query if node >= N_PRODUCTS else layer.update.product
            assert torch.allclose(found[node], kind(torch.nn.functional.gelu(total.flatten())), atol=1e-5)


def test_gcn_layer_is_torch_geometrics_on_a_whole_graph(world) -> None:
    """With a fan-out that covers everything, our sum over prefixes is GCNConv's symmetric normalisation."""
    from torch_geometric.nn import GCNConv

    from esci_tournament.tasks.families.graph_network.networks import GcnLayer

    rng = np.random.default_rng(5)
    frame = pd.DataFrame(
        {"query_key": rng.integers(0, 6, 20).astype(np.uint64), "product": rng.integers(0, 8, 20).astype(np.int32)}
    ).assign(weight=np.float32(1.5))
    graph = build(frame, 8, 20)
    nodes = np.arange(graph.n_nodes)
    rows, others, strengths, _, degrees = neighbours_of(graph, nodes, np.full(len(nodes), MISSING), 20)
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
