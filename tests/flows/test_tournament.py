"""Whole tournaments: with folds, with a candidate that fails, and with labels leaked through behaviour."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.models import Models
from esci_tournament.registry.scores import ScoreStore
from esci_tournament.registry.specs import parse_spec
from esci_tournament.registry.stages import StageStore
from esci_tournament.tasks.candidates.provenance import KEYS
from esci_tournament.tasks.candidates.steps import CandidateInputs, score
from esci_tournament.tasks.data.dataset import Dataset
from esci_tournament.tasks.data.load import EVENTS_FILE, load_esci
from esci_tournament.tasks.data.split import assign_roles, fit_plans, held_out_keys
from esci_tournament.tasks.data.synthesize import synthesize
from esci_tournament.tasks.families.language_model.tokenizer import train_tokenizer, wrap
from esci_tournament.tasks.families.loading import load_candidate
from tests.harness import clean_environment, new_home, warm

pytestmark = pytest.mark.slow

RECIPE = "{ epochs = 1, hidden_size = 16, text_dimensions = 16, layers = 1 }"
CANDIDATES = """
[[candidate]]
name = "sage"
family = "graph_network"
architecture = "graphsage"
recipe = {recipe}

[[candidate]]
name = "gcn"
family = "graph_network"
architecture = "gcn"
relation = "clicks"
recipe = {recipe}

[[candidate]]
name = "broken"
family = "language_model"
checkpoint = "nan"
"""


def nan_checkpoint(folder: Path) -> None:
    """Write a checkpoint that is whole in every respect, but whose weights are NaN."""
    tokenizer = wrap(train_tokenizer(["red mug", "blue kettle", "taza roja"], 300))
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=128,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    file = folder / "model.safetensors"
    weights = {name: torch.full_like(value, float("nan")) for name, value in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})


@dataclass(frozen=True)
class Held:
    """A tournament under two folds, of two graph networks and one candidate that fails."""

    home: Path
    dataset: Dataset
    document: dict[str, Any]


@pytest.fixture(scope="module")
def context(tiny_world: Path, tiny_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Held:
    folder = tmp_path_factory.mktemp("folds")
    nan_checkpoint(folder / "nan")
    (folder / "candidates.toml").write_text(CANDIDATES.replace("{recipe}", RECIPE), encoding="utf-8")
    home = new_home(folder / "home")
    command = ["run", "--home", home, "--data", tiny_world, "--candidates", "candidates.toml", "--json"]
    answer = warm(command, folder, clean_environment(TOURNAMENT_OUT_OF_SAMPLE="kfold", TOURNAMENT_FOLDS=2), 550)
    assert answer.code == 0, answer.err
    return Held(home, tiny_dataset, answer.document)


# Folds


def test_the_shift_of_each_model_is_in_the_document(context: Held) -> None:
    assert set(context.document["shift"]) == {"sage/1", "gcn/1"}
    assert all(0 < value < 1 for value in context.document["shift"].values())


def test_every_train_pair_is_scored_by_the_fold_model_that_did_not_see_its_query(context: Held) -> None:
    roles = assign_roles(context.dataset, "kfold", 0.25, 0.1, 2)
    keys = context.dataset.pairs["query_key"].to_numpy()
    stages = StageStore(context.home / "stages")
    stored = {row["candidate"]: row for row in ScoreStore(context.home / "scores").list()}
    words = stored["sage/1"]
    scores = ScoreStore(context.home / "scores").get("sage/1", words["data_version"], words["recipe"])
    found = pd.DataFrame(scores.probabilities, index=scores.example_id)
    assert sorted(found.index) == sorted(context.dataset.pairs["example_id"][roles["role"] != "quarantine"])
    digest = parse_spec(
        {
            "name": "sage",
            "family": "graph_network",
            "architecture": "graphsage",
            "recipe": {"epochs": 1, "hidden_size": 16, "text_dimensions": 16, "layers": 1},
        }
    ).digest()
    for fold in (0, 1):
        folder = next(
            folder
            for folder in stages.root.glob("train-*")
            if stages.record(folder.name)["inputs"]["spec"] == digest
            and stages.record(folder.name)["inputs"]["plan"] == f"fold-{fold}"
        )
        rows = np.flatnonzero(roles["fold"] == fold)
        assert not np.isin(keys[rows], np.load(folder / KEYS)).any()
        pairs = context.dataset.pairs.iloc[rows]
        again = load_candidate(folder).predict_proba(pairs, context.dataset.products)
        np.testing.assert_allclose(found.loc[pairs["example_id"]].to_numpy(), again, atol=1e-5)


# A candidate that fails


def test_one_that_fails_does_not_keep_the_others_from_a_champion(context: Held) -> None:
    assert context.document["promoted"]
    status = {model["name"]: model["status"] for model in context.document["models"]}
    assert status.pop("broken") == "failed"
    assert set(status.values()) <= {"member", "evicted"}


def test_why_it_failed_stands_in_ledger_registry_and_report(context: Held) -> None:
    told = next(model["reason"] for model in context.document["models"] if model["name"] == "broken")
    assert "the loss is nan at step 1" in told
    with Ledger.open(f"sqlite:///{context.home / 'ledger.db'}") as ledger:
        events = ledger.events(context.document["tournament"], "candidate_failed")
    assert [(event.subject, event.payload["reason"]) for event in events] == [("broken/1", told)]
    models = Models(f"sqlite:///{context.home / 'mlflow.db'}", context.home)
    tags = {candidate.id: candidate.tags.get("tournament.failed") for candidate in models.candidates()}
    assert tags == {"sage/1": None, "gcn/1": None, "broken/1": told}
    report = Path(context.document["report"]).read_text(encoding="utf-8")
    assert "broken" in report
    assert "the loss is nan at step 1" in report


# The planted leak


def plant(world: Path, folder: Path, dataset: Dataset, keys: np.ndarray) -> Dataset:
    """Add to the events of a world, for each Exact pair of these queries, an impression, a click and a purchase.

    Half of them spell the query otherwise, and all of them go into sessions that customers have had already.
    """
    shutil.copytree(world, folder)
    events = pd.read_parquet(folder / EVENTS_FILE)
    pairs = dataset.pairs
    exact = pairs[(pairs["label"] == 0) & np.isin(pairs["query_key"].to_numpy(), keys)].reset_index(drop=True)
    parts = []
    for action in ("impression", "click", "purchase"):
        rows = events.sample(len(exact), replace=True, random_state=len(parts)).reset_index(drop=True)
        rows["action"] = action
        rows["product_id"] = exact["product_id"].astype(str)
        rows["query"] = exact["query"].where(exact.index % 2 == 0, "  " + exact["query"] + " ").astype(str)
        rows["locale"] = exact["locale"].astype(str)
        parts.append(rows)
    every = pd.concat([events, *parts], ignore_index=True)
    every.to_parquet(folder / EVENTS_FILE, index=False)
    planted = load_esci(folder)
    added = planted.events[np.isin(planted.events["query_key"].to_numpy(), keys)]
    before = dataset.events[np.isin(dataset.events["query_key"].to_numpy(), keys)]
    assert len(added) == len(before) + 3 * len(exact) > len(before)
    return planted


def scores_on_held_out(dataset: Dataset, relation: str, root: Path) -> np.ndarray:
    """Return the scores of a graph network on the blend and test pairs, through train and score as a worker does."""
    roles = assign_roles(dataset, "blend", 0.25, 0.1, 2)
    plans = fit_plans(dataset, roles, "blend", 0.1)
    recipe = {"epochs": 1, "hidden_size": 16, "text_dimensions": 16, "layers": 2}
    spec = parse_spec(
        {"name": "g", "family": "graph_network", "architecture": "graphsage", "relation": relation, "recipe": recipe}
    )
    inputs, scores = CandidateInputs("g/1", spec, "", dataset.version, "roles", 0, "cpu"), ScoreStore(root / "scores")
    score(inputs, plans, dataset, StageStore(root / "stages"), scores)
    return scores.get("g/1", dataset.version, inputs.digest()).probabilities


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world smaller still, because it is learnt seven times."""
    return synthesize(tmp_path_factory.mktemp("world") / "smaller", queries=60, seed=7, searches_per_query=10)


@pytest.fixture(scope="module")
def dataset(world: Path) -> Dataset:
    return load_esci(world)


@pytest.fixture(scope="module")
def held_out(dataset: Dataset) -> np.ndarray:
    roles = assign_roles(dataset, "blend", 0.25, 0.1, 2)
    return held_out_keys(dataset.pairs, fit_plans(dataset, roles, "blend", 0.1)[0])


@pytest.fixture(scope="module")
def leaky(world: Path, dataset: Dataset, held_out: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The world with the labels of every held-out query, those of the test split among them, in its behaviour."""
    assert np.isin(dataset.pairs.loc[dataset.pairs["split"] == "test", "query_key"], held_out).all()
    return plant(world, tmp_path_factory.mktemp("leaky") / "world", dataset, held_out)


@pytest.fixture(scope="module")
def innocent(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], np.ndarray]:
    """Return the scores on a relation of the world as it is, computed once."""
    return cache(lambda relation: scores_on_held_out(dataset, relation, tmp_path_factory.mktemp("innocent")))


@pytest.mark.parametrize("relation", ["impressions", "clicks", "same_session"])
def test_labels_planted_in_behaviour_change_no_bit_of_the_scores(
    relation: str, dataset: Dataset, leaky: Dataset, innocent: Callable[[str], np.ndarray], tmp_path: Path
) -> None:
    assert leaky.version != dataset.version
    assert scores_on_held_out(leaky, relation, tmp_path).tobytes() == innocent(relation).tobytes()


def test_the_same_events_of_queries_that_are_fitted_on_do_change_the_scores(
    world: Path, dataset: Dataset, held_out: np.ndarray, innocent: Callable[[str], np.ndarray], tmp_path: Path
) -> None:
    """Else the test above would pass for a network that reads no events at all."""
    fitted_on = np.setdiff1d(dataset.pairs["query_key"].to_numpy(), held_out)
    planted = plant(world, tmp_path / "world", dataset, fitted_on)
    assert not np.array_equal(scores_on_held_out(planted, "clicks", tmp_path), innocent("clicks"))
