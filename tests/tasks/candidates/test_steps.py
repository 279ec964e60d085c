"""The steps of a candidate: results are stored under their inputs, and scores are always out of sample."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from esci_tournament.registry.errors import CandidateError, LeakError, NotFoundError, StoreError
from esci_tournament.registry.scores import ScoreStore
from esci_tournament.registry.specs import CandidateSpec, parse_spec
from esci_tournament.registry.stages import StageStore
from esci_tournament.tasks.candidates.provenance import KEYS
from esci_tournament.tasks.candidates.steps import (
    FULL,
    CandidateInputs,
    content_digest,
    fit_record,
    measure,
    measure_shift,
    score,
    stored_shift,
    train,
)
from esci_tournament.tasks.data.dataset import Dataset
from esci_tournament.tasks.data.split import FitPlan, assign_roles, fit_plans, held_out_keys
from esci_tournament.tasks.data.store import read_frame

pytestmark = pytest.mark.slow

RECIPE = {"epochs": 1, "hidden_size": 16, "text_dimensions": 16, "layers": 1}


def graph(name: str = "graph", **changes: object) -> CandidateSpec:
    content = {"name": name, "family": "graph_network", "architecture": "graphsage", "recipe": RECIPE}
    return parse_spec(content | changes)


@dataclass(frozen=True)
class Hall:
    """Stores, plans and one trained and scored candidate."""

    stages: StageStore
    scores: ScoreStore
    plans: list[FitPlan]
    inputs: CandidateInputs
    dataset: Dataset


def hall(dataset: Dataset, root: Path, mode: str) -> Hall:
    roles = assign_roles(dataset, mode, 0.25, 0.1, 2)
    plans = fit_plans(dataset, roles, mode, 0.1)
    inputs = CandidateInputs("graph/1", graph(), "", dataset.version, mode, 0, "cpu")
    stages, scores = StageStore(root / "stages"), ScoreStore(root / "scores")
    for plan in plans:
        train(inputs, plan, dataset, stages)
    score(inputs, plans, dataset, stages, scores)
    return Hall(stages, scores, plans, inputs, dataset)


@pytest.fixture(scope="module")
def blend(tiny_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Hall:
    return hall(tiny_dataset, tmp_path_factory.mktemp("blend"), "blend")


@pytest.fixture(scope="module")
def folds(tiny_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Hall:
    return hall(tiny_dataset, tmp_path_factory.mktemp("folds"), "kfold")


# Keys


def test_a_model_is_keyed_by_what_it_is_learnt_from_and_by_nothing_else(blend: Hall) -> None:
    key, stages = blend.inputs.train_key(blend.stages, FULL), blend.stages
    for same in ({"candidate": "other/7"}, {"device": "cuda:0"}, {"spec": graph("another-name")}):
        assert replace(blend.inputs, **same).train_key(stages, FULL) == key, same
    for other in (
        {"content": "x"},
        {"data_version": "x"},
        {"roles": "x"},
        {"seed": 1},
        {"spec": graph(relation="all")},
    ):
        assert replace(blend.inputs, **other).train_key(stages, FULL) != key, other
    assert blend.inputs.train_key(stages, "fold-0") != key


def test_scores_are_kept_under_all_that_they_follow_from_but_the_data(blend: Hall) -> None:
    recipe = blend.inputs.digest()
    assert replace(blend.inputs, device="cuda:0", candidate="other/7").digest() == recipe
    for other in ({"content": "x"}, {"roles": "x"}, {"seed": 1}, {"spec": graph(relation="all")}):
        assert replace(blend.inputs, **other).digest() != recipe, other


def test_a_cost_is_kept_for_each_device(blend: Hall) -> None:
    assert replace(blend.inputs, device="cuda:0").profile_key(blend.stages) != blend.inputs.profile_key(blend.stages)


def checkpoint(folder: Path) -> CandidateSpec:
    return parse_spec({"name": "text", "family": "language_model", "checkpoint": str(folder)})


def encoder(folder: Path) -> CandidateSpec:
    return graph(recipe=RECIPE | {"encoder": str(folder)})


@pytest.mark.parametrize("points_to", [checkpoint, encoder])
def test_a_checkpoint_that_is_edited_in_place_is_another_candidate(points_to, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"one")
    before = content_digest(points_to(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"two")
    after = content_digest(points_to(tmp_path))
    assert len({"", before, after}) == 3


def test_a_checkpoint_in_the_users_home_is_read_as_well(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"one")
    assert content_digest(checkpoint(Path("~/model"))) == content_digest(checkpoint(tmp_path / "model")) != ""


def test_what_points_to_no_folder_has_no_content() -> None:
    assert content_digest(graph()) == content_digest(checkpoint(Path("someone/on-the-hub"))) == ""


# Train


def test_a_model_that_is_there_is_not_fitted_again(blend: Hall) -> None:
    heard: list[float] = []
    folder = train(blend.inputs, blend.plans[0], blend.dataset, blend.stages, lambda share, doing: heard.append(share))
    assert folder == blend.inputs.model_folder(blend.stages)
    assert heard == []


def test_the_same_spec_under_another_name_is_not_fitted_again(blend: Hall) -> None:
    renamed = replace(blend.inputs, candidate="copy/1", spec=graph("copy"))
    assert renamed.model_folder(blend.stages) == blend.inputs.model_folder(blend.stages)


def test_beside_the_model_stands_every_query_it_saw(folds: Hall) -> None:
    for plan in folds.plans:
        keys = np.load(folds.stages.find(folds.inputs.train_key(folds.stages, plan.name)) / KEYS)
        seen = folds.dataset.pairs["query_key"].to_numpy()[np.concatenate([plan.fit, plan.validation])]
        np.testing.assert_array_equal(keys, np.unique(seen))


def test_its_record_says_how_long_it_took_and_on_what(blend: Hall) -> None:
    record = fit_record(blend.inputs.model_folder(blend.stages))
    assert record["seconds"] > 0
    assert (record["pairs"], record["plan"]) == (len(blend.plans[0].fit), FULL)


def test_no_edge_that_is_kept_belongs_to_a_query_that_the_plan_holds_out(folds: Hall) -> None:
    edges = [folder for folder in folds.stages.root.glob("edges-*") if (folder / "edges.arrow").is_file()]
    plans = {plan.name: plan for plan in folds.plans}
    assert len(edges) == len(plans)
    for folder in edges:
        inputs = folds.stages.record(folder.name)["inputs"]
        assert set(inputs) == {"data", "roles", "plan", "relation"}  # as homes have it
        assert inputs["relation"] == "impressions"
        plan = plans[inputs["plan"]]
        keys = read_frame(folder / "edges.arrow")["query_key"].to_numpy()
        assert len(keys)
        assert not np.isin(keys, held_out_keys(folds.dataset.pairs, plan)).any()


def test_a_model_that_was_never_trained_is_not_found(blend: Hall) -> None:
    with pytest.raises(NotFoundError, match="graph/1 is not in the stage store"):
        replace(blend.inputs, seed=99).model_folder(blend.stages)


# Damage


def test_a_damaged_model_is_fitted_again_and_gives_the_scores_that_are_stored(blend: Hall) -> None:
    """F2: bits of its weights flipped after it was scored."""
    key = blend.inputs.train_key(blend.stages, FULL)
    folder = blend.inputs.model_folder(blend.stages, whole=True)
    assert blend.inputs.is_done(blend.stages, blend.scores)
    weights = next(folder.rglob("*.safetensors"))
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    assert not blend.inputs.is_done(blend.stages, blend.scores)
    with pytest.raises(StoreError, match=r"graph/1.*safetensors has changed"):
        blend.inputs.model_folder(blend.stages, whole=True)
    again = train(blend.inputs, blend.plans[0], blend.dataset, blend.stages, scores=blend.scores)
    assert again == folder
    assert weights.read_bytes() == before
    assert blend.inputs.is_done(blend.stages, blend.scores)
    assert len(list(blend.stages.root.glob(f".damaged-*-{key}"))) == 1


def test_a_model_that_comes_out_different_does_not_take_the_place_of_the_one_that_was_scored(
    blend: Hall, tmp_path: Path
) -> None:
    """F2: what is on record was decided by the scores of the old one."""
    where = (blend.inputs.candidate, blend.inputs.data_version, blend.inputs.digest())
    stored = blend.scores.get(*where)
    others = ScoreStore(tmp_path / "scores")
    others.put(
        *where,
        example_id=stored.example_id,
        probabilities=stored.probabilities[:, ::-1],
        out_of_sample=stored.out_of_sample,
    )
    stages = StageStore(tmp_path / "stages")
    with pytest.raises(CandidateError, match=r"graph/1: its model .* is another one .* register the candidate"):
        train(blend.inputs, blend.plans[0], blend.dataset, stages, scores=others)
    assert stages.find(blend.inputs.train_key(stages, FULL)) is None


# Score


@pytest.mark.parametrize("name", ["blend", "folds"])
def test_each_pair_of_the_plans_is_scored_once(name: str, request: pytest.FixtureRequest) -> None:
    place: Hall = request.getfixturevalue(name)
    stored = place.scores.get(place.inputs.candidate, place.inputs.data_version, place.inputs.digest())
    wanted = place.dataset.pairs["example_id"].to_numpy()[np.concatenate([plan.score for plan in place.plans])]
    np.testing.assert_array_equal(stored.example_id, wanted)
    assert stored.out_of_sample.all()


def test_under_folds_every_pair_but_the_quarantined_is_scored(folds: Hall) -> None:
    roles = assign_roles(folds.dataset, "kfold", 0.25, 0.1, 2)
    wanted = folds.dataset.pairs.loc[roles["role"] != "quarantine", "example_id"]
    stored = folds.scores.get(folds.inputs.candidate, folds.inputs.data_version, folds.inputs.digest())
    assert sorted(stored.example_id) == sorted(wanted)


def test_scores_that_are_there_need_no_model(blend: Hall, tmp_path: Path) -> None:
    empty = StageStore(tmp_path / "stages")
    score(blend.inputs, blend.plans, blend.dataset, empty, blend.scores)
    assert not empty.root.exists()


def test_a_pair_whose_query_the_model_saw_is_never_scored(blend: Hall, tmp_path: Path) -> None:
    plan = blend.plans[0]
    leaky = replace(plan, score=np.append(plan.score, plan.validation[0]))  # not fitted on, but it chose the epoch
    scores = ScoreStore(tmp_path / "scores")
    with pytest.raises(LeakError, match="graph/1, plan full"):
        score(blend.inputs, [leaky], blend.dataset, blend.stages, scores)
    assert scores.list() == []


# Shift and cost


def test_the_shift_between_fold_models_and_the_served_one_is_measured(folds: Hall) -> None:
    assert stored_shift(folds.inputs, folds.plans, folds.stages) is None
    measure_shift(folds.inputs, folds.plans, folds.dataset, folds.stages)
    shift = stored_shift(folds.inputs, folds.plans, folds.stages)
    assert shift is not None
    assert 0 < shift < 1


def test_models_that_agree_have_no_shift(folds: Hall, tmp_path: Path) -> None:
    full = folds.plans[-1]
    stages = StageStore(tmp_path / "stages")
    source = folds.inputs.model_folder(folds.stages)
    for name in ("fold-0", FULL):
        stages.root.mkdir(exist_ok=True)
        (stages.root / folds.inputs.train_key(stages, name)).symlink_to(source)
    plans = [replace(full, name="fold-0"), full]
    measure_shift(folds.inputs, plans, folds.dataset, stages)
    assert stored_shift(folds.inputs, plans, stages) == 0


def test_without_folds_there_is_no_shift(blend: Hall) -> None:
    measure_shift(blend.inputs, blend.plans, blend.dataset, blend.stages)
    assert stored_shift(blend.inputs, blend.plans, blend.stages) is None


def test_the_cost_is_measured_once(blend: Hall) -> None:
    first = measure(blend.inputs, blend.dataset, blend.plans[0], blend.stages)
    assert first.milliseconds_per_page_p50 > 0
    assert measure(blend.inputs, blend.dataset, blend.plans[0], blend.stages) == first
    kept = blend.stages.find(blend.inputs.profile_key(blend.stages)) / "cost.json"
    assert json.loads(kept.read_text(encoding="utf-8"))["parameters"] == first.parameters
