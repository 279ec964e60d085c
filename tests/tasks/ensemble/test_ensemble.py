"""The ensemble as it is served: one self-contained folder, from raw rows to labels."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from esci_tournament.registry.specs import parse_spec
from esci_tournament.tasks.data.behaviour import edges
from esci_tournament.tasks.data.dataset import Dataset
from esci_tournament.tasks.ensemble.ensemble import Ensemble, write_ensemble
from esci_tournament.tasks.ensemble.fitting import Choice, fit_aggregator
from esci_tournament.tasks.families.graph_network.model import GraphNetwork
from esci_tournament.tasks.families.protocol import FitData

OFFSETS = (0.0, 0.0, 4.0, 0.0)  # a label is Complement where that is hardly probable
SPEC = {
    "name": "graph",
    "family": "graph_network",
    "architecture": "gcn",
    "recipe": {"epochs": 1, "hidden_size": 16, "text_dimensions": 16, "layers": 1},
}


def rows(**columns: list[object]) -> pd.DataFrame:
    whole = {"query": ["red lamp", "red lamp", "taza"], "product_locale": ["us", "us", "es"]}
    whole |= {"product_id": ["B1", "B2", "B1"], "product_title": ["Velo lamp", "Blue mug", "Taza"]}
    return pd.DataFrame(whole | columns)


@pytest.fixture(scope="module")
def folder(tiny_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ensemble of one model under two names; what it was made from is gone."""
    root = tmp_path_factory.mktemp("served")
    train = tiny_dataset.pairs[tiny_dataset.pairs["split"] == "train"]
    fit, validation = train[train["locale"] != "jp"], train[train["locale"] == "jp"]
    seen = edges(tiny_dataset, "impressions", validation["query_key"].unique())
    model = GraphNetwork(parse_spec(SPEC)).fit(
        FitData(fit, validation, tiny_dataset.products, seen, 0, "cpu", root / "work")
    )
    model.save(root / "model")
    for name in ("stage.json", "trained_keys.npy"):
        (root / "model" / name).write_bytes(b"of the stage store")
    rng = np.random.default_rng(0)
    columns = rng.dirichlet(np.ones(4), (400, 2)).astype(np.float32)
    groups = np.repeat(rng.integers(1, 2**63, 50, dtype=np.uint64), 8)
    labels = columns[:, 1].argmax(axis=1).astype(np.int8)
    members = ("graph/1", "graph/12")
    aggregator = fit_aggregator(columns, labels, groups, members, choice=Choice(rounds=5, offsets=OFFSETS))
    write_ensemble(root / "ensemble", [(name, root / "model") for name in members], aggregator)
    shutil.rmtree(root / "model")
    return root / "ensemble"


@pytest.fixture(scope="module")
def served(folder: Path) -> Ensemble:
    return Ensemble.load(folder)


@pytest.mark.slow
def test_a_folder_has_all_that_serving_needs_and_nothing_of_the_training(folder: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    names = {path.name for path in moved.rglob("*")}
    assert {"ensemble.json", "graph-1", "graph-12", "aggregator"} <= names
    assert names.isdisjoint({"stage.json", "trained_keys.npy"})
    assert list(Ensemble.load(moved).members) == ["graph/1", "graph/12"]


@pytest.mark.slow
def test_an_answer_is_four_probabilities_and_the_decided_label_on_the_index_of_the_rows(served: Ensemble) -> None:
    frame = rows().set_index(pd.Index(["x", "y", "z"]))
    answer = served.predict(frame)
    assert list(answer.columns) == ["E", "S", "C", "I", "label"]
    assert answer.index.tolist() == ["x", "y", "z"]
    np.testing.assert_allclose(answer[list("ESCI")].sum(axis=1), 1, atol=1e-5)
    decided = (np.log(answer[list("ESCI")]) + np.array(OFFSETS)).idxmax(axis=1)
    assert answer["label"].tolist() == decided.tolist()
    assert (answer["label"] != answer[list("ESCI")].idxmax(axis=1)).any()


@pytest.mark.slow
def test_a_row_gets_the_same_answer_alone_and_in_company(served: Ensemble) -> None:
    frame = rows()
    together = served.predict(frame)
    for number in range(len(frame)):
        alone = served.predict(frame.iloc[[number]])
        np.testing.assert_allclose(alone[list("ESCI")], together.iloc[[number]][list("ESCI")], atol=1e-5)


@pytest.mark.slow
def test_no_rows_get_no_answers(served: Ensemble) -> None:
    answer = served.predict(rows().head(0))
    assert (len(answer), list(answer.columns)) == (0, ["E", "S", "C", "I", "label"])
