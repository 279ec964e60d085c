"""Refreshing a fitted graph network with other edges gives the same as computing everything again."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from esci_tournament.registry.errors import CandidateError
from esci_tournament.tasks.data.dataset import LOCALES, query_keys
from esci_tournament.tasks.families.graph_network.embeddings import echoes, product_states
from esci_tournament.tasks.families.graph_network.encoders import product_texts
from esci_tournament.tasks.families.graph_network.model import GraphNetwork
from esci_tournament.tasks.families.graph_network.neighbourhoods import MISSING, build, stack
from esci_tournament.tasks.families.graph_network.spec import GraphNetworkRecipe, GraphNetworkSpec
from esci_tournament.tasks.families.protocol import FitData

PRODUCTS, QUERIES = 150, 60
WORDS = ("red", "mug", "lamp", "cup", "desk", "tea", "pot", "blue")


@dataclass(frozen=True)
class Small:
    """A small world without meaning: what is refreshed does not depend on what was learnt."""

    products: pd.DataFrame
    pairs: pd.DataFrame
    edges: pd.DataFrame  # of "clicks", between queries and products
    bought: pd.DataFrame  # of "bought_together", between products


def catalogue_of(count: int, first: int = 0) -> pd.DataFrame:
    rows = range(first, first + count)
    return pd.DataFrame(
        {
            "product_id": [f"P{row}" for row in rows],
            "locale": pd.Categorical(["us"] * count, categories=LOCALES),
            "title": [f"{WORDS[row % 8]} {WORDS[row // 8 % 8]} {row}" for row in rows],
        }
    ).assign(brand="", color="", bullets="", description="")


def clicks(random: np.random.Generator, count: int, queries: list[str], products: int) -> pd.DataFrame:
    chosen = random.integers(0, len(queries), count)
    names = [queries[row] for row in chosen]
    return pd.DataFrame(
        {
            "query": names,
            "locale": "us",
            "query_key": query_keys(names, ["us"] * count),
            "product": random.integers(0, products, count).astype(np.int32),
            "relation": "clicks",
            "weight": random.uniform(1, 5, count).astype(np.float32),  # of ties the smaller number of a node decides
        }
    )


@pytest.fixture(scope="module")
def world() -> Small:
    random = np.random.default_rng(4)
    queries = [f"{random.choice(WORDS)} {random.choice(WORDS)} {number}" for number in range(QUERIES)]
    rows = random.integers(0, QUERIES, 300)
    names = [f"judged {queries[row]}" for row in rows]
    pairs = pd.DataFrame(
        {
            "query": names,
            "query_key": query_keys(names, ["us"] * 300),
            "product": random.integers(0, PRODUCTS, 300).astype(np.int32),
            "locale": pd.Categorical(["us"] * 300, categories=LOCALES),
            "label": random.integers(0, 4, 300).astype(np.int8),
        }
    )
    ends = random.integers(0, PRODUCTS, (80, 2)).astype(np.int32)
    bought = pd.DataFrame(
        {"source": ends[:, 0], "product": ends[:, 1], "relation": "bought_together", "weight": np.float32(1)}
    )
    return Small(catalogue_of(PRODUCTS), pairs, clicks(random, 260, queries, PRODUCTS), bought)


def together(world: Small, edges: pd.DataFrame, bought: pd.DataFrame) -> pd.DataFrame:
    first = edges.assign(source=np.int32(-1))
    second = bought.assign(query="", locale="us", query_key=np.uint64(0))
    return pd.concat([first, second], ignore_index=True)


def fit(world: Small, architecture: str, work: Path, edges: pd.DataFrame, several: bool = False) -> GraphNetwork:
    recipe = GraphNetworkRecipe(hidden_size=16, text_dimensions=16, epochs=1, fanout=4, layers=2)
    relation = ["clicks", "bought_together"] if several else "clicks"
    spec = GraphNetworkSpec(name="toy", architecture=architecture, relation=relation, recipe=recipe)
    split = world.pairs["query_key"] % 5 == 0
    data = FitData(world.pairs[~split], world.pairs[split], world.products, edges, seed=0, device="cpu", work=work)
    return GraphNetwork(spec).fit(data)


@pytest.fixture(scope="module", params=["graphsage", "gcn", "gatv2"])
def saved(request, world: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    fit(world, request.param, folder / "work", world.edges).save(folder / "model")
    return folder / "model"


def changed_edges(world: Small, products: int) -> pd.DataFrame:
    """Return edges of which some went, some have another weight, and some came, also of a new query."""
    random = np.random.default_rng(9)
    kept = world.edges.drop(index=random.choice(260, 12, replace=False)).reset_index(drop=True)
    kept.loc[:5, "weight"] += np.float32(3)
    came = clicks(random, 10, ["a new query", world.edges["query"][0]], products)
    return pd.concat([kept, came], ignore_index=True).sample(frac=1, random_state=1)


def anew(model: GraphNetwork, parts: list[pd.DataFrame], products: pd.DataFrame, work: Path) -> tuple:
    """Return states and echoes of all products, everything computed anew."""
    fanout = model._fanout
    graphs = [build(part, len(products), fanout + 1) for part in parts]
    graph = graphs[0] if len(graphs) == 1 else stack(graphs)
    edges = parts[0].drop_duplicates("query_key").set_index("query_key")["query"]
    texts = product_texts(products, np.arange(len(products))) + [edges[key] for key in graph.query_keys]
    text = model.encoder.encode(texts)
    states = np.empty((len(products), 16), dtype=np.float32)
    for rows, part in product_states(model.network.products, graph, text, fanout, torch.device("cpu"), work):
        states[rows] = part
    nodes = np.arange(len(products))
    return states, echoes(graph, text, nodes, np.full(len(nodes), MISSING), fanout)


def described(model: GraphNetwork, products: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    rows = np.arange(len(products))
    states, _, echo = model._describe(products, rows, product_texts(products, rows))
    return states, echo


def same(got: tuple, expected: tuple) -> bool:
    return all(
        np.allclose(one.astype(np.float32), other, atol=4e-3, rtol=4e-3)
        for one, other in zip(got, expected, strict=True)
    )


def test_a_refresh_gives_what_computing_everything_anew_gives(world: Small, saved: Path, tmp_path: Path) -> None:
    model = GraphNetwork.load(saved)
    products = pd.concat([world.products, catalogue_of(7, PRODUCTS)], ignore_index=True)
    edges = changed_edges(world, len(products))
    before = described(model, products)
    count = model.refresh(edges, products)
    expected = anew(model, [edges], products, tmp_path)
    assert 0 < count < len(products)
    assert same(described(model, products), expected)
    assert not same(before, expected)
    # A second refresh with the same edges has nothing to do, in whatever order they and the products come
    shuffled = products.sample(frac=1, random_state=3)
    place = np.argsort(shuffled.index.to_numpy())
    moved = edges.assign(product=place[edges["product"]].astype(np.int32)).sample(frac=1, random_state=4)
    assert model.refresh(moved, shuffled.reset_index(drop=True)) == 0


def test_only_what_a_change_can_reach_is_computed(world: Small, saved: Path) -> None:
    model = GraphNetwork.load(saved)
    assert model.refresh(world.edges, world.products) == 0
    count = model.refresh(world.edges.iloc[1:], world.products)
    assert 1 <= count < PRODUCTS / 2


def test_products_that_moved_and_texts_that_changed(world: Small, saved: Path, tmp_path: Path) -> None:
    model = GraphNetwork.load(saved)
    order = np.random.default_rng(2).permutation(PRODUCTS)
    products = world.products.iloc[order].reset_index(drop=True)
    products.loc[:3, "title"] = "quite another thing"
    edges = world.edges.assign(product=np.argsort(order)[world.edges["product"]].astype(np.int32))
    assert model.refresh(edges, products) > 0
    assert same(described(model, products), anew(model, [edges], products, tmp_path))


def test_several_relations_are_refreshed_together(world: Small, tmp_path: Path) -> None:
    model = fit(world, "rgcn", tmp_path / "work", together(world, world.edges, world.bought), several=True)
    model.save(tmp_path / "model")
    model = GraphNetwork.load(tmp_path / "model")
    edges, bought = changed_edges(world, PRODUCTS), world.bought.iloc[5:]
    assert model.refresh(together(world, edges, bought), world.products) > 0
    assert same(described(model, world.products), anew(model, [edges, bought], world.products, tmp_path))


def test_a_refreshed_model_is_saved_and_loaded_like_any_other(world: Small, saved: Path, tmp_path: Path) -> None:
    model = GraphNetwork.load(saved)
    edges = changed_edges(world, PRODUCTS)
    model.refresh(edges, world.products)
    answers = model.predict_proba(world.pairs, world.products)
    model.save(tmp_path / "model")
    again = GraphNetwork.load(tmp_path / "model")
    assert np.array_equal(again.predict_proba(world.pairs, world.products), answers)
    assert isinstance(again.catalogue.states, np.memmap)
    assert isinstance(again.memory.relations[0].graph.neighbours, np.memmap)
    assert again.refresh(edges, world.products) == 0


def test_a_model_without_its_graph_says_so(world: Small, saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "model", ignore=shutil.ignore_patterns("graph"))
    model = GraphNetwork.load(tmp_path / "model")
    assert model.predict_proba(world.pairs[:3], world.products).shape == (3, 4)
    with pytest.raises(CandidateError, match="train it again"):
        model.refresh(world.edges, world.products)


def test_a_graph_that_is_not_whole_is_refused(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "model")
    np.save(tmp_path / "model" / "graph" / "0" / "products_digest.npy", np.zeros(3, np.uint64))
    with pytest.raises(CandidateError, match="another graph"):
        GraphNetwork.load(tmp_path / "model")


def test_edges_that_are_all_gone_leave_the_model_as_it_was(world: Small, saved: Path) -> None:
    model = GraphNetwork.load(saved)
    answers = model.predict_proba(world.pairs, world.products)
    with pytest.raises(CandidateError, match="no edges"):
        model.refresh(world.edges.iloc[:0], world.products)
    assert np.array_equal(model.predict_proba(world.pairs, world.products), answers)
