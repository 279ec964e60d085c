"""What people compare in MLflow: every candidate's parameters, numbers, curves and log, and no number of the test."""

from __future__ import annotations

import json
from typing import Any

from esci_tournament.flows import compared
from esci_tournament.tasks.candidates.steps import FULL
from tests.flows.conftest import say


def runs(world: Any, name: str) -> Any:
    models = world.workspace.models
    return models.tracking.client.get_run(models.candidate(f"{name}/1").run_id)


def test_each_candidates_run_has_what_was_found_out_about_it(world: Any) -> None:
    held = world.hold("t-1", ["good", "weak"])
    work = world.workspace
    folder = work.stages.find(held.context.entrants[0].inputs.train_key(work.stages, FULL))
    record = json.loads((folder / "fit.json").read_text()) | {"curves": {"train_loss": [1.5, None, 0.5]}}
    (folder / "fit.json").write_text(json.dumps(record))
    (work.folder("logs") / "good-1.log").write_text("epoch 1\n")
    for _ in range(2):  # the same again is seen once
        compared.log_candidates.fn(work, held.context, held.summary)
    run = runs(world, "good")
    assert run.data.params["family"] == "scores"
    model = next(one for one in held.summary.models if one.name == "good")
    assert run.data.metrics["blend_macro_f1"] == model.blend.macro_f1
    assert run.data.metrics["memory_mib"] == 10.0
    assert 0 < run.data.metrics["shap_share"] <= 1
    curve = work.models.tracking.client.get_metric_history(run.info.run_id, "train_loss")
    assert {(one.step, one.value) for one in curve} == {(1, 1.5), (3, 0.5)}
    files = {one.path for one in work.models.tracking.client.list_artifacts(run.info.run_id)}
    assert "training.log" in files
    assert run.info.status == "FINISHED"


def test_each_tournament_is_a_step_and_no_number_of_the_test_is_told(world: Any) -> None:
    say(world, world.challenge("t-1", ["best"]))
    held = world.hold("t-2", ["best", "weak"])
    compared.log_candidates.fn(world.workspace, held.context, held.summary)
    run = runs(world, "weak")
    client = world.workspace.models.tracking.client
    assert {one.step for one in client.get_metric_history(run.info.run_id, "blend_accuracy")} == {2}
    assert not any(name.startswith(("test", "accuracy")) for name in run.data.metrics)


def test_a_run_that_is_gone_keeps_no_other_from_being_logged(world: Any) -> None:
    held = world.hold("t-1", ["good", "weak"])
    client = world.workspace.models.tracking.client
    client.delete_model_version("good", "1")
    compared.log_candidates.fn(world.workspace, held.context, held.summary)
    assert "blend_accuracy" in runs(world, "weak").data.metrics
