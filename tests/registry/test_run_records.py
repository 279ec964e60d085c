"""The runs of candidates in MLflow: parameters once, numbers by step, and nothing of ours in somebody else's run."""

from __future__ import annotations

from pathlib import Path

import pytest

from esci_tournament.registry.models import Models
from esci_tournament.registry.run_records import parameters_of, record_outcome
from esci_tournament.registry.specs import parse_spec
from esci_tournament.registry.versions import SPEC_TAG

SPEC = {"name": "sage", "family": "graph_network", "architecture": "graphsage", "relation": "clicks"}


@pytest.fixture
def models(home: Path) -> Models:
    return Models(f"sqlite:///{home / 'mlflow.db'}", home)


def test_a_spec_becomes_flat_parameters_without_what_is_unset() -> None:
    found = dict(parameters_of(parse_spec(SPEC).model_dump(mode="json")))
    assert found["architecture"] == "graphsage"
    assert "recipe.hidden_size" in found
    assert all(value not in ("", "None") for value in found.values())


def test_numbers_stand_under_their_step_and_a_log_is_cut_at_its_beginning(models: Models, tmp_path: Path) -> None:
    version = models.register_candidate(parse_spec(SPEC))
    log = tmp_path / "log"
    log.write_text("begin\n" + "x" * 2**20 + "end")
    for step in (1, 2):
        record_outcome(models, version, step, {"blend_accuracy": step / 10}, {"train_loss": [0.5, float("nan")]}, log)
    client, run = models.tracking.client, version.run_id
    assert [one.value for one in client.get_metric_history(run, "blend_accuracy")] == [0.1, 0.2]
    assert {one.step for one in client.get_metric_history(run, "train_loss")} == {1}
    text = Path(client.download_artifacts(run, "training.log", str(tmp_path))).read_text()
    assert text.endswith("end")
    assert not text.startswith("begin")


def test_in_a_run_of_somebody_elses_neither_parameters_nor_a_log_are_put(models: Models, tmp_path: Path) -> None:
    client = models.tracking.client
    run = client.create_run(client.create_experiment("theirs")).info.run_id
    client.log_param(run, "family", "mine")
    client.create_registered_model("theirs")
    client.create_model_version("theirs", "file:///nowhere", run, tags={SPEC_TAG: '{"family": "scores"}'})
    log = tmp_path / "log"
    log.write_text("x")
    record_outcome(models, models.candidate("theirs/1"), 1, {"blend_accuracy": 0.5}, {}, log)
    known = client.get_run(run)
    assert (known.data.params, known.data.metrics) == ({"family": "mine"}, {"blend_accuracy": 0.5})
    assert client.list_artifacts(run) == []
