"""Embeddings of a real graph network and a real bi-encoder: damaged, repaired, limited, refreshed."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from esci_tournament.deployments.scorer.compute.embeddings import (
    embed,
    keep_most_retrieved,
    make_whole,
    most_retrieved,
    refresh,
    refresh_from,
    refreshed_copy,
)
from esci_tournament.tasks.data.behaviour import edges as edges_of
from esci_tournament.tasks.data.dataset import Dataset
from esci_tournament.tasks.data.store import save_dataset
from esci_tournament.tasks.ensemble.ensemble import MANIFEST
from esci_tournament.tasks.families.graph_network.model import GraphNetwork
from esci_tournament.tasks.families.graph_network.spec import GraphNetworkRecipe, GraphNetworkSpec
from esci_tournament.tasks.families.language_model.model import LanguageModel
from esci_tournament.tasks.families.language_model.spec import LanguageModelRecipe, LanguageModelSpec
from esci_tournament.tasks.families.protocol import FROM_TEXT, REBUILT, WHOLE, FitData
from esci_tournament.tasks.families.score_file.model import ScoreFile
from esci_tournament.tasks.families.score_file.spec import ScoresSpec

NAME = "sage/1"


@pytest.fixture(scope="module")
def data(tiny_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> FitData:
    pairs = tiny_dataset.pairs
    held_out = pairs["query_key"] % 4 == 0
    edges = edges_of(tiny_dataset, "clicks", pairs["query_key"][held_out].unique())
    work = tmp_path_factory.mktemp("work")
    return FitData(pairs[~held_out], pairs[held_out], tiny_dataset.products, edges, 0, "cpu", work)


@pytest.fixture(scope="module")
def ensemble(data: FitData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = GraphNetworkRecipe(hidden_size=16, text_dimensions=16, epochs=1, fanout=4, layers=2)
    spec = GraphNetworkSpec(name="sage", architecture="graphsage", relation="clicks", recipe=recipe)
    folder = tmp_path_factory.mktemp("ensemble")
    GraphNetwork(spec).fit(data).save(folder / "members" / "sage-1")
    (folder / MANIFEST).write_text(json.dumps({"members": [{"id": NAME, "folder": "members/sage-1"}]}))
    return folder


@pytest.fixture
def copy(ensemble: Path, tmp_path: Path) -> Path:
    shutil.copytree(ensemble, tmp_path / "copy")
    return tmp_path / "copy"


def answers(ensemble: Path, data: FitData) -> np.ndarray:
    return GraphNetwork.load(ensemble / "members" / "sage-1").predict_proba(data.validation, data.products)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_what_is_whole_is_left_alone(copy: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*.npy")}
    assert make_whole(copy) == {NAME: WHOLE}
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*.npy")} == before


@pytest.mark.parametrize("name", ["catalogue_states.npy", "catalogue_echoes.npy"])
@pytest.mark.parametrize("how", ["a bit", "cut", "gone"])
def test_damaged_embeddings_are_computed_anew(copy: Path, data: FitData, name: str, how: str) -> None:
    expected = answers(copy, data)
    path = copy / "members" / "sage-1" / name
    if how == "a bit":
        damage(path)
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:500])
    else:
        path.unlink()
    assert make_whole(copy) == {NAME: REBUILT}
    assert answers(copy, data) == pytest.approx(expected, abs=5e-3)
    assert make_whole(copy) == {NAME: WHOLE}


@pytest.mark.parametrize("name", ["catalogue_keys.npy", "graph/0/neighbours.npy", "seal.json"])
def test_without_a_sound_graph_products_are_computed_from_their_text(copy: Path, data: FitData, name: str) -> None:
    expected = answers(copy, data)
    path = copy / "members" / "sage-1" / name
    damage(path) if name != "seal.json" else path.write_text("{")
    damage(copy / "members" / "sage-1" / "catalogue_states.npy")
    assert make_whole(copy) == {NAME: FROM_TEXT}
    model = GraphNetwork.load(copy / "members" / "sage-1")
    assert len(model.catalogue.keys) == 0
    got = model.predict_proba(data.validation, data.products)
    assert np.isfinite(got).all()
    assert not np.allclose(got, expected, atol=1e-3)
    assert make_whole(copy) == {NAME: WHOLE}


def test_only_the_most_retrieved_are_held_and_others_fall_back(copy: Path, data: FitData) -> None:
    expected = answers(copy, data)
    model = GraphNetwork.load(copy / "members" / "sage-1")
    wanted = data.products["product_id"].iloc[[5, 9, 40]].tolist()
    keep_most_retrieved({NAME: model}, data.products, 3, dict.fromkeys(wanted, 7))
    assert len(model.catalogue.keys) == 3
    rows = model.rows_of(data.products)
    assert set(data.products["product_id"][rows >= 0]) == set(wanted)
    pairs = data.validation.assign(product=np.int32(5))
    whole = GraphNetwork.load(copy / "members" / "sage-1").predict_proba(pairs, data.products)
    assert np.array_equal(model.predict_proba(pairs, data.products), whole)
    assert not np.array_equal(model.predict_proba(data.validation, data.products), expected)


def test_edges_are_taken_up_by_who_can(copy: Path, data: FitData, caplog: pytest.LogCaptureFixture) -> None:
    good, old = (GraphNetwork.load(copy / "members" / "sage-1") for _ in range(2))
    old.memory = None
    spec = ScoresSpec(name="other", file="x", trained_on="other_queries", provenance="for a test")
    asked = []

    def edges(relations: tuple[str, ...]) -> pd.DataFrame:
        asked.append(relations)
        return data.edges.iloc[3:]

    done = refresh({NAME: good, "old/1": old, "other/1": ScoreFile(spec)}, edges, data.products)
    assert list(done) == [NAME]
    assert done[NAME] > 0
    assert asked == [("clicks",)] * 2
    assert "old/1 are not refreshed" in caplog.text


def test_a_loaded_data_set_brings_its_edges(copy: Path, tiny_dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    save_dataset(tiny_dataset, tmp_path / "data")
    model = GraphNetwork.load(copy / "members" / "sage-1")
    assert refresh_from({NAME: model}, tmp_path / "data")[NAME] > 0  # the clicks of queries that were held out
    assert refresh_from({NAME: model}, tmp_path / "data") == {NAME: 0}


def test_a_copy_with_newer_data_is_a_refreshed_ensemble_and_leaves_the_old_one_alone(
    copy: Path, data: FitData, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    other = copy / "members" / "words-1"
    other.mkdir()
    content = {
        "name": "words",
        "family": "scores",
        "file": "x",
        "trained_on": "other_queries",
        "provenance": "for a test",
    }
    (other / "spec.json").write_text(json.dumps(content))
    members = [{"id": NAME, "folder": "members/sage-1"}, {"id": "words/1", "folder": "members/words-1"}]
    (copy / MANIFEST).write_text(json.dumps({"members": members}))
    (tmp_path / "data").mkdir()
    save_dataset(tiny_dataset, tmp_path / "data")
    before = answers(copy, data)
    target = tmp_path / "fresh"
    target.mkdir()
    changed = refreshed_copy(copy, tmp_path / "data", target)
    assert list(changed) == [NAME]
    assert changed[NAME] > 0
    expected = GraphNetwork.load(copy / "members" / "sage-1")
    refresh_from({NAME: expected}, tmp_path / "data")
    wanted = expected.predict_proba(data.validation, data.products)
    np.testing.assert_array_equal(answers(target, data), wanted)
    assert not np.allclose(wanted, before, atol=1e-3)
    assert make_whole(target) == {NAME: WHOLE}
    # What has not changed takes no room of its own, and nobody writes into what is shared
    assert os.path.samefile(target / "members" / "words-1" / "spec.json", other / "spec.json")
    damage(target / "members" / "sage-1" / "catalogue_states.npy")
    assert make_whole(target) == {NAME: REBUILT}
    np.testing.assert_array_equal(answers(copy, data), before)
    files = {path.relative_to(copy) for path in copy.rglob("*") if path.is_file()}
    assert files == {path.relative_to(target) for path in target.rglob("*") if path.is_file()}


def test_most_retrieved_is_a_part_of_the_catalogue_in_its_order(data: FitData) -> None:
    ids = data.products["product_id"].astype(str)
    chosen = most_retrieved(data.products, 4, {ids.iloc[30]: 2, ids.iloc[10]: 1})["product_id"].tolist()
    assert chosen == ids.iloc[[0, 1, 10, 30]].tolist()
    assert most_retrieved(data.products, None) is data.products


@pytest.mark.slow
def test_vectors_of_a_bi_encoder_are_kept_checked_and_made_anew(data: FitData, tmp_path: Path) -> None:
    recipe = LanguageModelRecipe(
        style="bi_encoder", epochs=1, hidden_size=16, layers=1, max_length=24, fields=("title",), learning_rate=3e-3
    )
    spec = LanguageModelSpec(name="bi", architecture="bert", recipe=recipe)
    data = replace(data, pairs=data.pairs[:200], validation=data.validation[:60])
    LanguageModel(spec).fit(data).save(tmp_path / "model")
    store, asked = tmp_path / "store", []

    def products() -> pd.DataFrame:
        asked.append(1)
        return data.products

    def loaded(version: str = "d1", limit: int | None = None) -> tuple[dict[str, int], np.ndarray]:
        model = LanguageModel.load(tmp_path / "model")
        held = embed({"bi/1": model}, products, store, version, limit)
        return held, model.predict_proba(data.validation, data.products)

    expected = LanguageModel.load(tmp_path / "model").predict_proba(data.validation, data.products)
    held, got = loaded()
    assert held == {"bi/1": len(data.products)}
    assert got == pytest.approx(expected, abs=1e-5)
    assert loaded()[0] == held
    assert len(asked) == 1  # found in the store
    damage(next(store.rglob("vectors.npy")))
    assert loaded()[1] == pytest.approx(expected, abs=1e-5)
    assert len(asked) == 2
    assert loaded("d2", limit=10)[0] == {"bi/1": 10}
    assert len(list((store / "bi-1").iterdir())) == 1  # those of the older data are gone
