"""Time that precomputed product embeddings save a graph network at serving time, for a page of 40 products.

A generated graph (300,000 products, 20,000 queries, 3 M edges with a skewed distribution), the recipe's default layers,
width and fan-out, and random weights, because time does not depend on the weights. "Ahead" finds the products by their
key and gathers their states. "At request time" gathers the neighbourhoods of the page and passes messages; the text
vectors are already computed. With nothing at hand, the texts of the neighbourhood are encoded as well, by LSA, the
cheapest encoder. "Whole page" adds what all variants need: encode the query, compare its words with the products', and
the head.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.harness import Figure, arguments, figure, median_seconds, report, say
from benchmarks.neighbourhoods import Size, make_edges
from esci_tournament.tasks.data.dataset import LOCALES
from esci_tournament.tasks.families.graph_network.catalogue import EmbeddingCatalogue
from esci_tournament.tasks.families.graph_network.embeddings import echoes, product_states
from esci_tournament.tasks.families.graph_network.encoders import Lsa, product_texts
from esci_tournament.tasks.families.graph_network.model import GraphNetwork
from esci_tournament.tasks.families.graph_network.neighbourhoods import MISSING, Neighbourhoods, build
from esci_tournament.tasks.families.graph_network.networks import GraphPairNetwork
from esci_tournament.tasks.families.graph_network.spec import GraphNetworkRecipe, GraphNetworkSpec
from esci_tournament.tasks.families.graph_network.subgraphs import trees
from esci_tournament.tasks.families.lexicon import Lexicon
from esci_tournament.tasks.families.product_keys import identities

FULL, QUICK = Size(300_000, 20_000, 3_000_000), Size(30_000, 2_000, 300_000)
ARCHITECTURES = ("graphsage", "gcn", "gatv2")
PAGE, RUNS = 40, 60
_CPU = torch.device("cpu")


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and return 0 when every target is met, else 1."""
    options = arguments("embeddings", __doc__, argv)
    size = QUICK if options.quick else FULL
    recipe = GraphNetworkRecipe()
    figures: list[Figure] = [figure("products", size.products, "products")]
    with tempfile.TemporaryDirectory(prefix="embeddings-") as name:
        folder = Path(name)
        say("making the graph")
        make_edges(folder, size, options.seed)  # its texts are not used
        edges = pd.DataFrame({one: np.load(folder / f"{one}.npy") for one in ("query_key", "product", "weight")})
        graph = build(edges, size.products, recipe.fanout + 1)
        nodes = graph.n_nodes
        text = np.random.default_rng(options.seed).standard_normal((nodes, recipe.text_dimensions)).astype(np.float16)
        products = catalogue_frame(size.products)
        for architecture in ARCHITECTURES:
            say(f"embedding all products: {architecture}")
            model = make_model(architecture, recipe, graph, text, products, folder)
            figures += measure(model, graph, text, products, recipe)
    report("embeddings", figures, options.json)
    return 0 if all(each.met is not False for each in figures) else 1


def catalogue_frame(count: int) -> pd.DataFrame:
    """Return products with titles of a few words."""
    words = np.array(["red", "mug", "lamp", "desk", "oak", "small", "steel", "garden", "kids", "set"])
    chosen = words[np.random.default_rng(1).integers(0, len(words), (count, 6))]
    return pd.DataFrame(
        {
            "product_id": [f"B{number:09d}" for number in range(count)],
            "locale": pd.Categorical(["us"] * count, categories=LOCALES),
            "title": [" ".join(row) for row in chosen],
        }
    ).assign(brand="velo", color="red", bullets="", description="")


def make_model(
    architecture: str,
    recipe: GraphNetworkRecipe,
    graph: Neighbourhoods,
    text: np.ndarray,
    products: pd.DataFrame,
    folder: Path,
) -> GraphNetwork:
    """Return a graph network with random weights and all products computed ahead, memory-mapped."""
    torch.manual_seed(0)
    model = GraphNetwork(GraphNetworkSpec(name="bench", architecture=architecture, relation="clicks", recipe=recipe))
    sample = product_texts(products, np.arange(2000))
    model.lexicon = Lexicon.fit(sample)
    model.encoder = Lsa.fit(sample, model.lexicon, recipe.text_dimensions)
    model.network = GraphPairNetwork(architecture, recipe, recipe.text_dimensions).eval()
    states = np.empty((graph.n_products, recipe.hidden_size), dtype=np.float16)
    for rows, part in product_states(model.network.products, graph, text, recipe.fanout, _CPU, folder):
        states[rows] = part
    rows = np.arange(graph.n_products)
    echo = np.zeros((len(rows), recipe.text_dimensions), dtype=np.float16)
    identity = identities(products["product_id"], products["locale"].astype(str), product_texts(products, rows))
    place = folder / architecture
    place.mkdir()
    EmbeddingCatalogue.make(identity, states, text[: graph.n_products], echo).save(place)
    model.catalogue = EmbeddingCatalogue.load(place)
    return model


def measure(
    model: GraphNetwork,
    graph: Neighbourhoods,
    text: np.ndarray,
    products: pd.DataFrame,
    recipe: GraphNetworkRecipe,
) -> list[Figure]:
    """Return the figures of one architecture."""
    random = np.random.default_rng(2)
    # Popular products stand in most pages, as they do in the graph's edges
    popular = np.argsort(-(graph.neighbours[: graph.n_products] != MISSING).sum(axis=1), kind="stable")
    pages = [popular[(graph.n_products * random.random(PAGE) ** 2).astype(np.int64)] for _ in range(RUNS)]
    tower = model.network.products

    @torch.inference_mode()
    def at_request(rows: np.ndarray) -> np.ndarray:
        nobody = np.full(len(rows), MISSING)
        part = trees(graph, rows, nobody, recipe.layers, recipe.fanout)
        vectors = torch.from_numpy(np.asarray(text[part.nodes], dtype=np.float32))
        inputs = tower.inputs_of(vectors, torch.from_numpy(part.nodes >= graph.n_products))
        facts = (part.edges, part.strengths, part.degrees, part.types)
        arrays = [torch.from_numpy(np.ascontiguousarray(array)) for array in facts]
        states = tower(inputs, *arrays, part.nodes_to_depth, part.edges_to_depth).numpy()
        echoes(graph, text, rows, nobody, recipe.fanout)
        return states

    def from_nothing(rows: np.ndarray) -> None:
        part = trees(graph, rows, np.full(len(rows), MISSING), recipe.layers, recipe.fanout)
        seen = np.unique(part.nodes)
        texts = product_texts(products, seen[seen < graph.n_products])
        model.encoder.encode([*texts, *["small red mug"] * (len(seen) - len(texts))])
        at_request(rows)

    frames = [products.iloc[rows].reset_index(drop=True) for rows in pages]
    texts = [product_texts(frame, np.arange(PAGE)) for frame in frames]
    queries = pd.DataFrame({"query": "small red mug", "locale": "us", "product": np.arange(PAGE, dtype=np.int32)})
    every = np.arange(PAGE)
    name = model.spec.architecture
    gap = np.abs(model._describe(frames[0], every, texts[0])[0].astype(np.float32) - at_request(pages[0])).max()
    turns = [iter(range(RUNS)) for _ in range(4)]

    def described() -> None:
        number = next(turns[0])
        model._describe(frames[number], every, texts[number])

    def computed() -> None:
        at_request(pages[next(turns[1])])

    ahead, late = median_seconds(described, RUNS), median_seconds(computed, RUNS)
    nothing = median_seconds(lambda: from_nothing(pages[next(turns[3])]), RUNS // 6)
    whole = median_seconds(lambda: model.predict_proba(queries, frames[next(turns[2])]), RUNS)
    return [
        figure(f"{name}: products of a page, ahead", 1e3 * ahead, "ms", "", "at request time", 1e3 * late),
        figure(f"{name}: speed-up, products of a page", late / ahead, "times", ">= 50"),
        figure(f"{name}: speed-up where nothing is at hand", nothing / ahead, "times", "", "ms", 1e3 * nothing),
        figure(f"{name}: whole page", 1e3 * whole, "ms", "", "at request time", 1e3 * (whole - ahead + late)),
        figure(f"{name}: speed-up, whole page", (whole - ahead + late) / whole, "times"),
        figure(f"{name}: largest gap between both", gap, "of a state", "<= 0.01"),
    ]


if __name__ == "__main__":
    sys.exit(main())
