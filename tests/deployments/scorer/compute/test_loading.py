"""A champion's members as they are loaded for serving."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from esci_tournament.deployments.scorer.catalogue import Text
from esci_tournament.deployments.scorer.compute.loading import Job, load_members
from esci_tournament.deployments.scorer.compute.pairs import Pairs
from esci_tournament.tasks.ensemble.aggregate import Aggregator
from esci_tournament.tasks.ensemble.subsets import Subsets
from tests.deployments.scorer.conftest import NAMES, constant_ensemble

PAGE = Pairs("lamp", "us", [Text("P0", "red lamp", "", "", "", "")])


@pytest.fixture
def job(fitted: tuple[Aggregator, Subsets], tmp_path: Path) -> Job:
    folder = constant_ensemble(tmp_path / "ensemble", fitted, 0)
    return Job(folder, "cpu", None, 1, 100, None, "data", tmp_path / "vectors")


def test_a_job_is_the_same_after_it_went_to_another_process(job: Job) -> None:
    for one in (job, replace(job, products=Path("products.arrow"), slots=2, precomputed=5, retrieved={"P1": 3})):
        assert Job.from_json(json.loads(json.dumps(one.to_json()))) == one


def test_those_that_were_asked_for_are_loaded_and_keep_the_aggregators_order(job: Job) -> None:
    assert list(job.folders) == list(NAMES)
    members = load_members(job, NAMES[1:], "cpu")
    assert list(members) == list(NAMES[1:])
    for name, model in members.items():
        mix = np.load(job.folders[name] / "mix.npy")
        np.testing.assert_array_equal(model.predict_proba(*PAGE.frames), mix[None])


def test_members_whose_family_can_be_forked_are_loaded_once_for_all_replicas(job: Job) -> None:
    assert job.forkable() == list(NAMES)
    spec = job.folders[NAMES[0]] / "spec.json"
    guest = {"name": "alpha", "family": "pyfunc", "model": "models:/guest/1", "trained_on": "other_queries"}
    spec.write_text(json.dumps(guest | {"provenance": "made for a test"}), encoding="utf-8")
    assert job.forkable() == list(NAMES[1:])  # what a pyfunc starts is not known
