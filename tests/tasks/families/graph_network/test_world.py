"""On the generated world, behaviour improves on text alone, and shuffled behaviour does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from esci_tournament.registry.specs import CandidateSpec
from esci_tournament.tasks.data.behaviour import edges
from esci_tournament.tasks.data.dataset import Dataset
from esci_tournament.tasks.data.layout import EVENTS_FILE
from esci_tournament.tasks.data.load import load_esci
from esci_tournament.tasks.data.split import assign_roles, fit_plans, held_out_keys
from esci_tournament.tasks.data.synthesize import WORLD_PRODUCTS_FILE, synthesize
from esci_tournament.tasks.families.graph_network.spec import GraphNetworkRecipe, GraphNetworkSpec
from esci_tournament.tasks.families.language_model.spec import LanguageModelRecipe, LanguageModelSpec
from esci_tournament.tasks.families.loading import make_candidate
from esci_tournament.tasks.families.protocol import FitData

QUERIES = 240
GRAPH = GraphNetworkRecipe(epochs=8, learning_rate=5e-3, dropout=0.3, fanout=16, hidden_size=64, text_dimensions=64)
TEXT = LanguageModelRecipe(
    epochs=3, learning_rate=3e-3, max_length=32, fields=("title",), hidden_size=32, layers=1, vocabulary=800
)
NETWORKS = [
    GraphNetworkSpec(name="sage", architecture="graphsage", relation="clicks", recipe=GRAPH),
    GraphNetworkSpec(name="gcn", architecture="gcn", relation="clicks", recipe=GRAPH),
]
LANGUAGE_MODELS = [
    LanguageModelSpec(name="distilbert", architecture="distilbert", recipe=TEXT),
    LanguageModelSpec(name="electra", architecture="electra", recipe=TEXT),
]


def answers(spec: CandidateSpec, dataset: Dataset, test: pd.DataFrame, work: Path) -> np.ndarray:
    """Fit on the train split, its own validation aside, and return the labels given to the test pairs."""
    roles = assign_roles(dataset, "blend", 0.05, 0.1, 5)
    (plan,) = fit_plans(dataset, roles, "blend", 0.1)
    known = None
    if isinstance(spec, GraphNetworkSpec):
        known = edges(dataset, spec.relation, held_out_keys(dataset.pairs, plan))
    parts = (dataset.pairs.iloc[rows].reset_index(drop=True) for rows in (plan.fit, plan.validation))
    model = make_candidate(spec).fit(FitData(*parts, dataset.products, known, seed=0, device="cpu", work=work))
    return model.predict_proba(test, dataset.products).argmax(1)


def macro_f1(truth: np.ndarray, answer: np.ndarray) -> float:
    return float(f1_score(truth, answer, average="macro", labels=range(4), zero_division=0))


def gains(truth: np.ndarray, graph: np.ndarray, text: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return the macro F1 that the graph has above the text in resamples of the queries, float (400,)."""
    rng = np.random.default_rng(0)
    names, place = np.unique(queries, return_inverse=True)
    rows = [np.flatnonzero(place == number) for number in range(len(names))]
    found = []
    for _ in range(400):
        chosen = np.concatenate([rows[number] for number in rng.integers(len(names), size=len(names))])
        found.append(macro_f1(truth[chosen], graph[chosen]) - macro_f1(truth[chosen], text[chosen]))
    return np.array(found)


@pytest.mark.slow
def test_the_graph_knows_what_the_text_does_not_and_only_while_behaviour_means_something(tmp_path: Path) -> None:
    """The best graph network against the best language model, on test pairs whose product's text says nothing.

    One world, its clicks as they are and its clicks dealt out anew within each locale. What the language models see
    is the same both times, so they are fitted once.
    """
    folder = synthesize(tmp_path / "world", queries=QUERIES, seed=4, uninformative_share=0.4, searches_per_query=20)
    truth = pd.read_parquet(folder / WORLD_PRODUCTS_FILE)
    dataset = load_esci(folder)
    test = dataset.pairs[dataset.pairs["split"] == "test"].reset_index(drop=True)
    hard = truth["uninformative"].to_numpy()[test["product"]]
    labels, queries = test["label"].to_numpy(), test["query_key"].to_numpy()

    shuffled = pd.read_parquet(folder / EVENTS_FILE)
    rng = np.random.default_rng(0)
    shuffled["product_id"] = shuffled.groupby("locale")["product_id"].transform(lambda ids: rng.permutation(ids))
    shuffled.to_parquet(folder / EVENTS_FILE, index=False)

    def best(specs: list, data: Dataset, work: str) -> np.ndarray:
        every = [answers(spec, data, test, tmp_path / work / spec.name) for spec in specs]
        return max(every, key=lambda answer: macro_f1(labels[hard], answer[hard]))

    text = best(LANGUAGE_MODELS, dataset, "text")
    signal, noise = (
        gains(labels[hard], best(NETWORKS, data, name)[hard], text[hard], queries[hard])
        for name, data in (("signal", dataset), ("noise", load_esci(folder)))
    )
    assert macro_f1(labels[~hard], text[~hard]) > 0.3, "the language model reads what there is to read"
    assert np.quantile(signal, 0.025) > 0.03, f"behaviour is worth {signal.mean():.3f} of macro F1"
    assert np.quantile(noise, 0.025) <= 0, f"shuffled behaviour is worth {noise.mean():.3f} of macro F1"
