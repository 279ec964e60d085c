"""The graph-network family on small worlds: training, saving, resuming, refusals, and leak protection."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from esci_tournament.registry.errors import CandidateError, LeakError
from esci_tournament.tasks.data.dataset import LOCALES, query_keys
from esci_tournament.tasks.families.graph_network import training
from esci_tournament.tasks.families.graph_network.model import GraphNetwork
from esci_tournament.tasks.families.graph_network.neighbourhoods import build, stack
from esci_tournament.tasks.families.graph_network.networks import GraphPairNetwork
from esci_tournament.tasks.families.graph_network.spec import GraphNetworkRecipe, GraphNetworkSpec
from esci_tournament.tasks.families.graph_network.training import PairInputs
from esci_tournament.tasks.families.loading import load_candidate
from esci_tournament.tasks.families.protocol import FitData

ARCHITECTURES = ("graphsage", "gcn", "gatv2", "rgcn", "hgt")
TOPICS, PRODUCTS, QUERIES_A_TOPIC = 6, 240, 24


@dataclass(frozen=True)
class ToyWorld:
    """Products whose text is a bare number; only clicks say which topic they belong to.

    Judged pairs to fit on name the first half of the products, pairs to test on the second half: what a model says of
    those can only come from the graph. Clicks are made by queries that nobody judges and by the fit queries.
    """

    products: pd.DataFrame
    fit: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame
    edges: pd.DataFrame

    def data(self, work: Path, **changes: object) -> FitData:
        data = FitData(self.fit, self.validation, self.products, self.edges, seed=1, device="cpu", work=work)
        return replace(data, **changes)


def make_world(shuffled: bool = False) -> ToyWorld:
    rng = np.random.default_rng(11)
    topic_of = rng.permutation(np.arange(PRODUCTS) % TOPICS)
    products = pd.DataFrame(
        {
            "product_id": [f"P{row:04d}" for row in range(PRODUCTS)],
            "locale": pd.Categorical(["us"] * PRODUCTS, categories=LOCALES),
            "title": [f"item {number}" for number in rng.permutation(9000)[:PRODUCTS] + 1000],
        }
    ).assign(brand="", color="", bullets="", description="")
    topic = np.repeat(np.arange(TOPICS), QUERIES_A_TOPIC)
    words = np.array([[f"{first}{second}" for second in ("ba", "ke", "li", "mo", "nu", "ry")] for first in "cdfghj"])
    query = [f"{' '.join(rng.choice(words[t], 3, replace=False))} {number}" for number, t in enumerate(topic)]
    keys = query_keys(query, ["us"] * len(query))
    role = np.tile(["fit", "fit", "fit", "fit", "validation", "test", "none", "none"], len(query) // 8)

    judged, clicked = [], []
    for number, t in enumerate(topic):
        half = np.arange(PRODUCTS) % 2 == (role[number] == "test")
        for label, other in ((0, t), (2, (t + 1) % TOPICS), (3, (t + 3) % TOPICS)):
            pool = np.flatnonzero(half & (topic_of == other))
            judged += [(number, product, label) for product in rng.choice(pool, 4, replace=False)]
        if role[number] in ("fit", "none"):
            clicked += [(number, product) for product in rng.choice(np.flatnonzero(topic_of == t), 12, replace=False)]
    rows, product, label = np.array(judged).T
    pairs = pd.DataFrame(
        {
            "example_id": np.arange(len(rows)),
            "query_id": rows,
            "query": np.array(query, dtype=object)[rows],
            "query_key": keys[rows],
            "product_id": products["product_id"].to_numpy(object)[product],
            "product": product.astype(np.int32),
            "locale": pd.Categorical(["us"] * len(rows), categories=LOCALES),
            "label": label.astype(np.int8),
        }
    )
    source, target = np.array(clicked).T
    if shuffled:
        target = rng.permutation(target)
    edges = pd.DataFrame(
        {
            "query": np.array(query, dtype=object)[source],
            "locale": pd.Categorical(["us"] * len(source), categories=LOCALES),
            "query_key": keys[source],
            "product": target.astype(np.int32),
            "relation": "clicks",
            "weight": np.float32(1),
        }
    )
    parts = [pairs[role[rows] == name].reset_index(drop=True) for name in ("fit", "validation", "test")]
    return ToyWorld(products, *parts, edges)


def make_spec(architecture: str = "graphsage", **recipe: object) -> GraphNetworkSpec:
    knobs = {"hidden_size": 32, "text_dimensions": 32, "batch_size": 64, "epochs": 6, "learning_rate": 5e-3, **recipe}
    return GraphNetworkSpec(
        name="toy", architecture=architecture, relation="clicks", recipe=GraphNetworkRecipe(**knobs)
    )


def accuracy(model: GraphNetwork, world: ToyWorld) -> float:
    answers = model.predict_proba(world.test, world.products).argmax(1)
    return float((answers == world.test["label"].to_numpy()).mean())


def weights(model: GraphNetwork) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in model.network.state_dict().items()}


@pytest.fixture(scope="module")
def world() -> ToyWorld:
    return make_world()


@pytest.fixture(scope="module", params=ARCHITECTURES)
def fitted(request, world, tmp_path_factory) -> GraphNetwork:
    return GraphNetwork(make_spec(request.param)).fit(world.data(tmp_path_factory.mktemp(request.param)))


@pytest.fixture(scope="module")
def graphsage(world, tmp_path_factory) -> GraphNetwork:
    return GraphNetwork(make_spec()).fit(world.data(tmp_path_factory.mktemp("graphsage")))


def test_reads_what_only_clicks_say(world, fitted) -> None:
    assert accuracy(fitted, world) > 0.8  # three classes of equal size


def test_finds_nothing_in_shuffled_clicks(tmp_path) -> None:
    shuffled = make_world(shuffled=True)
    model = GraphNetwork(make_spec()).fit(shuffled.data(tmp_path))
    assert accuracy(model, shuffled) < 0.5


def test_probabilities_are_probabilities(world, fitted) -> None:
    found = fitted.predict_proba(world.test, world.products)
    assert found.dtype == np.float32
    assert found.shape == (len(world.test), 4)
    assert found.min() >= 0
    assert found.sum(axis=1) == pytest.approx(np.ones(len(found)), abs=1e-5)
    assert fitted.predict_proba(world.test.iloc[:0], world.products).shape == (0, 4)


def test_an_answer_does_not_depend_on_the_rest_of_the_page(world, fitted) -> None:
    together = fitted.predict_proba(world.test.iloc[:20], world.products)
    for row in (0, 7, 19):
        alone = fitted.predict_proba(world.test.iloc[[row]], world.products)
        assert alone[0] == pytest.approx(together[row], abs=1e-5)


def test_saved_model_answers_the_same(world, fitted, tmp_path) -> None:
    fitted.save(tmp_path / "model")
    moved = shutil.move(tmp_path / "model", tmp_path / "elsewhere")
    again = load_candidate(Path(moved))
    expected = fitted.predict_proba(world.test, world.products)
    assert np.array_equal(again.predict_proba(world.test, world.products), expected)
    assert again.spec == fitted.spec
    assert again.parameters() == fitted.parameters() > 0
    files = [path for path in Path(moved).rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".safetensors", ".json", ".npy"}
    assert isinstance(again.catalogue.states, np.memmap)


def test_a_folder_that_is_no_model_is_refused(tmp_path) -> None:
    with pytest.raises(CandidateError, match="no graph network"):
        GraphNetwork.load(tmp_path)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_same_seed_same_weights(world, tmp_path, architecture: str) -> None:
    spec = make_spec(architecture, epochs=2)
    first, second = (GraphNetwork(spec).fit(world.data(tmp_path / name)) for name in ("first", "second"))
    other = GraphNetwork(spec).fit(world.data(tmp_path / "other", seed=2))
    for name, value in weights(first).items():
        assert np.array_equal(value, weights(second)[name]), name
    assert np.array_equal(first.catalogue.states, second.catalogue.states)
    assert not np.array_equal(first.catalogue.states, other.catalogue.states)


def test_a_killed_run_ends_like_one_that_was_not(world, tmp_path) -> None:
    class Killed(Exception):
        pass

    def kill(share: float, doing: str) -> None:
        if doing.startswith("epoch 2 "):
            raise Killed

    spec = make_spec(epochs=4)
    whole = GraphNetwork(spec).fit(world.data(tmp_path / "whole"))
    with pytest.raises(Killed):
        GraphNetwork(spec).fit(world.data(tmp_path / "killed", progress=kill))
    epochs: list[str] = []
    resumed = GraphNetwork(spec).fit(
        world.data(tmp_path / "killed", progress=lambda share, doing: epochs.append(doing.partition(":")[0]))
    )
    assert [doing for doing in epochs if doing.startswith("epoch")] == ["epoch 3 of 4", "epoch 4 of 4"]
    assert resumed.history == whole.history
    curves = whole.learning_curves()
    assert curves["validation_macro_f1"] == [one["macro_f1"] for one in whole.history["epochs"]]
    assert set(curves) == {"train_loss", "validation_macro_f1"}
    for name, value in weights(whole).items():
        assert np.array_equal(value, weights(resumed)[name]), name


def test_a_checkpoint_of_other_data_is_not_resumed(world, tmp_path) -> None:
    spec = make_spec(epochs=2)
    GraphNetwork(spec).fit(world.data(tmp_path))
    epochs: list[str] = []
    GraphNetwork(spec).fit(
        world.data(tmp_path, pairs=world.fit.iloc[:-1], progress=lambda share, doing: epochs.append(doing))
    )
    assert sum(doing.startswith("epoch") for doing in epochs) == 2


def test_cold_products_and_unseen_queries_get_an_answer(world, fitted) -> None:
    newcomers = (
        world.products.iloc[:3]
        .assign(product_id=["N1", "N2", "N3"], title=["item 7", "cba cke cli lamp", ""])
        .reset_index(drop=True)
    )
    pairs = pd.DataFrame(
        {"query": ["never asked before", "cba cke cli", "椅子"], "locale": ["us", "es", "jp"], "product": [0, 1, 2]}
    )
    found = fitted.predict_proba(pairs, newcomers)
    assert np.isfinite(found).all()
    assert found.sum(axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    assert found.max() < 0.999  # it does not pretend to know


def test_a_cold_product_is_what_the_graph_says_of_one_without_edges(world, tmp_path) -> None:
    """Whether a product without edges stands in the catalogue or comes later makes no difference."""
    lonely = int(world.edges["product"].iloc[0])
    edges = world.edges[world.edges["product"] != lonely].reset_index(drop=True)
    model = GraphNetwork(make_spec(epochs=1)).fit(world.data(tmp_path, edges=edges))
    pair = world.test.iloc[[0]].assign(product=np.int32(lonely))
    renamed = world.products.assign(product_id="X" + world.products["product_id"])
    known, new = (model.predict_proba(pair, frame) for frame in (world.products, renamed))
    assert known == pytest.approx(new, abs=2e-3)  # the catalogue keeps half precision


def test_known_products_are_found_wherever_they_stand(world, graphsage) -> None:
    order = np.random.default_rng(0).permutation(PRODUCTS)
    elsewhere = world.products.iloc[order].reset_index(drop=True)
    moved = world.test.assign(product=np.argsort(order)[world.test["product"]].astype(np.int32))
    expected = graphsage.predict_proba(world.test, world.products)
    assert graphsage.predict_proba(moved, elsewhere) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("column", ["product_id", "title", "brand"])
def test_a_changed_product_is_not_taken_for_the_known_one(world, graphsage, column: str) -> None:
    changed = world.products.assign(**{column: world.products[column] + " changed"})
    before, after = (graphsage.predict_proba(world.test, frame) for frame in (world.products, changed))
    assert np.abs(before - after).max(axis=1).min() > 1e-4


def test_a_changed_description_is_not_read_so_it_changes_nothing(world, graphsage) -> None:
    changed = world.products.assign(description="new words")
    assert np.array_equal(
        graphsage.predict_proba(world.test, changed), graphsage.predict_proba(world.test, world.products)
    )


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_pair_is_seen_as_if_its_own_query_had_never_been_asked(world, architecture: str, layers: int) -> None:
    """In training, a pair's logits are those of a graph without its query: nothing of it is there to be learnt."""
    own = world.edges["query_key"] == world.fit["query_key"].iloc[0]
    pairs = world.fit[world.fit["query_key"] == world.fit["query_key"].iloc[0]]
    assert np.isin(pairs["product"], world.edges["product"][own]).any()
    spec = make_spec(architecture, layers=layers)
    found = []
    relations = 2 if architecture in ("rgcn", "hgt") else 1
    torch.manual_seed(0)
    network = GraphPairNetwork(architecture, spec.recipe, 8, relations).eval()
    for edges in (world.edges, world.edges[~own]):
        graph = build(edges, PRODUCTS, fanout=100)
        if relations > 1:  # in both relations the query must be unheard
            graph = stack([graph, build(edges[edges["product"] % 3 > 0], PRODUCTS, fanout=100)])
        keys = np.concatenate([np.arange(PRODUCTS), graph.query_keys % 999_983]).astype(np.int64)
        text = np.cos(np.outer(keys + 1.0, np.arange(1, 9))).astype(np.float32)  # of a node, whatever its number is
        inputs = PairInputs(
            products=pairs["product"].to_numpy(np.int64),
            own_queries=graph.query_nodes(pairs["query_key"].to_numpy()),
            queries=np.zeros(len(pairs), dtype=np.int64),
            overlap=np.zeros((len(pairs), 3), dtype=np.float32),
            locale=np.zeros((len(pairs), 3), dtype=np.float32),
            labels=pairs["label"].to_numpy(np.int64),
        )
        toy = training.World(graph, text, np.ones((1, 8), dtype=np.float32), 5, torch.device("cpu"))
        with torch.inference_mode():
            found.append(training.batch_logits(network, toy, inputs, np.arange(len(pairs))).numpy())
    assert np.allclose(*found, atol=1e-5)


def test_without_edges_it_says_so(world, tmp_path) -> None:
    for edges in (None, world.edges.iloc[:0]):
        with pytest.raises(CandidateError, match="'clicks' has no edges"):
            GraphNetwork(make_spec()).fit(world.data(tmp_path, edges=edges))


def test_an_edge_of_a_validation_query_is_a_leak(world, tmp_path) -> None:
    leak = world.edges.assign(query_key=world.validation["query_key"].iloc[0])
    with pytest.raises(LeakError, match="validation"):
        GraphNetwork(make_spec()).fit(world.data(tmp_path, edges=leak))


def test_a_loss_that_is_not_finite_loses(world, tmp_path) -> None:
    with pytest.raises(CandidateError, match="learning rate"):
        GraphNetwork(make_spec(learning_rate=1000, weight_decay=10)).fit(world.data(tmp_path))


def test_probabilities_that_are_not_finite_are_refused(world, graphsage, tmp_path) -> None:
    graphsage.save(tmp_path)
    broken = GraphNetwork.load(tmp_path)
    broken.network.head[-1].bias.data[2] = float("nan")
    with pytest.raises(CandidateError, match="no finite probabilities"):
        broken.predict_proba(world.test, world.products)


def test_heads_must_divide_the_hidden_size(world, tmp_path) -> None:
    with pytest.raises(CandidateError, match="multiple of 5 heads"):
        GraphNetwork(make_spec("gatv2", heads=5)).fit(world.data(tmp_path))


def test_products_tied_to_products_work_as_well(world, tmp_path) -> None:
    """Products clicked for the same query are tied to each other; the model does not care which relation it is."""
    ties = world.edges.merge(world.edges, on="query_key", suffixes=("_source", ""))
    ties = ties[ties["product_source"] < ties["product"]].groupby(["product_source", "product"]).size().reset_index()
    edges = pd.DataFrame(
        {
            "source": ties["product_source"].astype(np.int32),
            "product": ties["product"].astype(np.int32),
            "relation": "same_session",
            "weight": np.float32(1),
        }
    )
    model = GraphNetwork(make_spec(epochs=2)).fit(world.data(tmp_path, edges=edges))
    assert np.isfinite(model.predict_proba(world.test, world.products)).all()


def is_tied(product):
    return product // 2 % 2 == 1


def with_ties(world: ToyWorld) -> pd.DataFrame:
    """Take the clicks of half of the products away and tie each to three clicked ones of its topic in their place.

    What is known of these takes both relations, one after the other.
    """
    clicks = world.edges[~is_tied(world.edges["product"])].assign(source=np.int32(-1), locale="us")
    topic = world.edges.groupby("product")["query"].first().str[:1]  # the first letter of its queries' words
    rng = np.random.default_rng(2)
    ends = []
    for product in np.flatnonzero(is_tied(np.arange(PRODUCTS))):
        same = [other for other in topic.index[topic == topic.get(product)] if not is_tied(other)]
        ends += [(int(other), int(product)) for other in rng.choice(same, 3, replace=False)]
    source, target = np.array(ends, dtype=np.int32).T
    ties = pd.DataFrame({"source": source, "product": target, "relation": "same_session", "weight": np.float32(1)})
    return pd.concat([clicks, ties.assign(query="", locale="", query_key=np.uint64(0))], ignore_index=True)


@pytest.mark.parametrize("architecture", ["rgcn", "hgt"])
def test_reads_what_only_two_relations_together_say(world, tmp_path, architecture: str) -> None:
    both = with_ties(world)
    spec = make_spec(architecture, fanout=12, epochs=10).model_copy(update={"relation": ("clicks", "same_session")})
    model = GraphNetwork(spec).fit(world.data(tmp_path / "both", edges=both))
    clicks = both[both["relation"] == "clicks"].drop(columns="source").reset_index(drop=True)
    blind = GraphNetwork(make_spec(architecture, epochs=2)).fit(world.data(tmp_path / "one", edges=clicks))
    hard = replace(world, test=world.test[is_tied(world.test["product"])])
    assert accuracy(model, hard) > 0.7  # three classes of equal size
    assert accuracy(blind, hard) < 0.5
    model.save(tmp_path / "model")
    again = load_candidate(tmp_path / "model")
    assert again.spec == spec
    expected = model.predict_proba(world.test, world.products)
    assert np.array_equal(again.predict_proba(world.test, world.products), expected)


@pytest.mark.parametrize("architecture", ["rgcn", "hgt"])
def test_a_product_cold_in_every_relation_is_answered_as_a_new_one(world, tmp_path, architecture: str) -> None:
    edges = with_ties(world)
    lonely = int(edges["product"].iloc[0])
    edges = edges[(edges["product"] != lonely) & (edges["source"] != lonely)].reset_index(drop=True)
    spec = make_spec(architecture, epochs=1).model_copy(update={"relation": ("clicks", "same_session")})
    model = GraphNetwork(spec).fit(world.data(tmp_path, edges=edges))
    pair = world.test.iloc[[0]].assign(product=np.int32(lonely), query="never asked before")
    renamed = world.products.assign(product_id="X" + world.products["product_id"])
    known, new = (model.predict_proba(pair, frame) for frame in (world.products, renamed))
    assert known == pytest.approx(new, abs=2e-3)  # the catalogue keeps half precision


def test_every_one_of_several_relations_needs_edges(world, tmp_path) -> None:
    spec = make_spec("rgcn").model_copy(update={"relation": ("clicks", "same_brand", "same_session")})
    with pytest.raises(CandidateError, match="'same_brand' has no edges"):
        GraphNetwork(spec).fit(world.data(tmp_path, edges=with_ties(world)))


def test_an_edge_of_a_validation_query_among_several_relations_is_a_leak(world, tmp_path) -> None:
    leak = with_ties(world)
    leak.loc[0, "query_key"] = world.validation["query_key"].iloc[0]
    spec = make_spec("rgcn").model_copy(update={"relation": ("clicks", "same_session")})
    with pytest.raises(LeakError, match="1 edges"):
        GraphNetwork(spec).fit(world.data(tmp_path, edges=leak))


def test_a_pretrained_text_encoder_is_carried_along(world, tmp_path) -> None:
    """A real, tiny BERT: the saved model works after its checkpoint is gone."""
    checkpoint = tmp_path / "bert"
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=90, special_tokens=["[PAD]", "[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(world.edges["query"], trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(
        checkpoint
    )
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=90, **sizes)).save_pretrained(checkpoint)
    model = GraphNetwork(make_spec(encoder=str(checkpoint), epochs=1)).fit(world.data(tmp_path / "work"))
    expected = model.predict_proba(world.test, world.products)
    model.save(tmp_path / "model")
    shutil.rmtree(checkpoint)
    again = load_candidate(tmp_path / "model")
    assert np.array_equal(again.predict_proba(world.test, world.products), expected)
    assert again.parameters() == model.parameters()


def test_class_weights_reach_the_loss(world, tmp_path) -> None:
    rare = world.fit.drop(world.fit.index[(world.fit["label"] == 2) & (np.arange(len(world.fit)) % 4 > 0)])
    shares = []
    for mode in ("none", "balanced"):
        model = GraphNetwork(make_spec(epochs=2, class_weights=mode)).fit(world.data(tmp_path, pairs=rare))
        shares.append(model.predict_proba(world.test, world.products)[:, 2].mean())
    assert shares[1] > shares[0]


def test_evaluation_reads_no_neighbour_of_the_own_query(world, tmp_path, monkeypatch) -> None:
    """Whatever the batch, the own query of a pair is handed to the trees as banned."""
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    real = training.trees

    def watching(graph, roots, banned, *rest):
        part = real(graph, roots, banned, *rest)
        seen.append((banned, part.nodes))
        return part

    monkeypatch.setattr(training, "trees", watching)
    GraphNetwork(make_spec(epochs=1, batch_size=1)).fit(
        world.data(tmp_path, pairs=world.fit.iloc[:40], validation=world.validation.iloc[:5])
    )
    masked = [(banned[0], nodes) for banned, nodes in seen if len(banned) == 1 and banned[0] >= 0]
    assert len(masked) == 40
    assert all(own not in nodes.tolist() for own, nodes in masked)
