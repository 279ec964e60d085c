"""Models fitted on older data score newer data unchanged, and never a query they were trained on."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from esci_tournament.registry.errors import CandidateError, DataError, NotFoundError
from esci_tournament.registry.scores import ScoreStore
from esci_tournament.registry.specs import parse_spec
from esci_tournament.registry.stages import StageStore
from esci_tournament.tasks.candidates.enter import with_model_of
from esci_tournament.tasks.candidates.provenance import EDGES, Seen, without_seen
from esci_tournament.tasks.candidates.steps import FULL, CandidateInputs, Origin, measure, score, train
from esci_tournament.tasks.data.dataset import Dataset
from esci_tournament.tasks.data.split import FitPlan, assign_roles, fit_plans

pytestmark = pytest.mark.slow

RECIPE = {"epochs": 1, "hidden_size": 16, "text_dimensions": 16, "layers": 1}
SPEC = parse_spec(
    {"name": "g", "family": "graph_network", "architecture": "graphsage", "relation": "clicks", "recipe": RECIPE}
)


def planned(dataset: Dataset) -> tuple[pd.DataFrame, FitPlan]:
    roles = assign_roles(dataset, "blend", 0.25, 0.1, 2)
    return roles, fit_plans(dataset, roles, "blend", 0.1)[0]


@dataclass(frozen=True)
class Weeks:
    """A model of the week before; this week a query it was fitted on, and one it knows by clicks, are to be judged."""

    stages: StageStore
    older: CandidateInputs
    now: CandidateInputs
    newer: Dataset
    fitted_key: int
    clicked_key: int


@pytest.fixture(scope="module")
def weeks(tiny_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Weeks:
    stages = StageStore(tmp_path_factory.mktemp("weeks") / "stages")
    older = CandidateInputs("g/1", SPEC, "", tiny_dataset.version, "roles before", 0, "cpu")
    plan = planned(tiny_dataset)[1]
    train(older, plan, tiny_dataset, stages)
    pairs = tiny_dataset.pairs
    fitted_key = int(pairs["query_key"].iloc[plan.fit[0]])
    clicks = tiny_dataset.events[tiny_dataset.events["action"] == "click"]
    clicked_key = int(clicks.loc[~clicks["query_key"].isin(pairs["query_key"]), "query_key"].iloc[0])
    moved = pairs["split"].where(pairs["query_key"] != fitted_key, "test").astype(pairs["split"].dtype)
    judged_now = (
        pairs[pairs["split"] == "test"]
        .head(5)
        .assign(query_key=np.uint64(clicked_key), query_id=10**7, example_id=10**7 + np.arange(5))
    )
    newer = replace(
        tiny_dataset,
        pairs=pd.concat([pairs.assign(split=moved), judged_now], ignore_index=True),
        version="this week",
    )
    now = replace(older, data_version="this week", roles="roles now", fitted=older.origin)
    return Weeks(stages, older, now, newer, fitted_key, clicked_key)


def test_the_model_is_the_older_one_and_its_scores_are_kept_apart(weeks: Weeks) -> None:
    assert weeks.now.model_folder(weeks.stages) == weeks.older.model_folder(weeks.stages)
    assert weeks.now.profile_key(weeks.stages) == weeks.older.profile_key(weeks.stages)
    assert weeks.now.digest() != replace(weeks.now, fitted=None).digest()
    assert replace(weeks.older, fitted=None).digest() == weeks.older.digest()


def test_what_it_has_seen_holds_the_queries_of_its_clicks(weeks: Weeks) -> None:
    seen = Seen.read(weeks.older.model_folder(weeks.stages))
    assert weeks.fitted_key in seen.keys
    assert weeks.clicked_key in seen.edges
    assert weeks.clicked_key not in seen.keys


def test_it_scores_newer_pairs_but_none_of_a_query_it_has_seen(weeks: Weeks, tmp_path: Path) -> None:
    scores, (_, plan) = ScoreStore(tmp_path / "scores"), planned(weeks.newer)
    before = sorted(path.name for path in weeks.stages.root.glob("train-*"))
    score(weeks.now, [plan], weeks.newer, weeks.stages, scores)
    assert sorted(path.name for path in weeks.stages.root.glob("train-*")) == before
    stored = scores.get("g/1", "this week", weeks.now.digest())
    wanted = weeks.newer.pairs.iloc[plan.score]
    assert {weeks.fitted_key, weeks.clicked_key} <= set(wanted["query_key"])
    scored = wanted[wanted["example_id"].isin(stored.example_id)]
    left_out = wanted[~wanted["example_id"].isin(stored.example_id)]
    assert set(left_out["query_key"]) == {weeks.fitted_key, weeks.clicked_key}
    assert not Seen.read(weeks.now.model_folder(weeks.stages)).of(scored).any()


def test_pairs_it_has_seen_are_neither_learnt_from_nor_judged(weeks: Weeks) -> None:
    roles, _ = planned(weeks.newer)
    seen = Seen.read(weeks.now.model_folder(weeks.stages))
    judged = without_seen(roles, weeks.newer.pairs, [Seen(), seen])
    changed = weeks.newer.pairs[(judged["role"] != roles["role"]).to_numpy()]
    assert set(changed["query_key"]) == {weeks.fitted_key, weeks.clicked_key}
    assert set(judged["role"][changed.index]) == {"quarantine"}


def test_when_it_has_seen_all_there_is_to_judge_the_words_say_what_to_do(weeks: Weeks, tmp_path: Path) -> None:
    roles, plan = planned(weeks.newer)
    with pytest.raises(DataError, match=r"no pair of the test part is left.*refit"):
        without_seen(roles, weeks.newer.pairs, [Seen(splits=("test",))])
    fitted = np.flatnonzero(weeks.newer.pairs["query_key"] == weeks.fitted_key)
    with pytest.raises(CandidateError, match=r"has seen every query that is judged now.*refit"):
        score(weeks.now, [replace(plan, score=fitted)], weeks.newer, weeks.stages, ScoreStore(tmp_path / "scores"))


def test_a_model_that_is_gone_is_not_fitted_on_newer_data_in_its_name(weeks: Weeks, tmp_path: Path) -> None:
    empty, plan = StageStore(tmp_path / "stages"), planned(weeks.newer)[1]
    for step in (
        lambda: train(weeks.now, plan, weeks.newer, empty),
        lambda: measure(weeks.now, weeks.newer, plan, empty),
    ):
        with pytest.raises(NotFoundError, match=r"not in the stage store any more.*refit"):
            step()


def test_a_model_is_used_again_only_with_all_that_it_has_seen_on_record(weeks: Weeks, tmp_path: Path) -> None:
    fresh = replace(weeks.now, fitted=None)
    assert with_model_of(fresh, weeks.older.origin, weeks.stages) == weeks.now
    assert with_model_of(fresh, fresh.origin, weeks.stages) == fresh
    assert with_model_of(fresh, Origin("another", "roles"), weeks.stages) is None
    copy = StageStore(tmp_path / "stages")
    key = weeks.older.train_key(weeks.stages, FULL)
    shutil.copytree(weeks.stages.root / key, copy.root / key)
    (copy.root / key / EDGES).unlink()
    assert with_model_of(fresh, weeks.older.origin, copy) is None
