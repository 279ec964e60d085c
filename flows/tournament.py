"""The tournament, as a story: one Prefect flow, each stage a task, each stage stored under its inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow

from flows import competition, conclusion, preparation
from flows.held import Outcome, on_record
from registry.settings import read_settings
from registry.specs import parse_spec
from registry.workspace import Workspace


@flow(name="tournament", flow_run_name="tournament on {data}", validate_parameters=False)
def tournament(data: str, candidates: list[dict[str, Any]], settings: dict[str, Any] | None = None) -> Outcome:
    """Hold one tournament.

    Args:
        data: folder with the official file names of the Shopping Queries Dataset.
        candidates: specs of the candidates that enter, each a JSON-able dict; empty: all that wait in MLflow.
        settings: settings that differ from those of the environment.
    """
    workspace = Workspace(read_settings(**(settings or {})))
    specs = [parse_spec(candidate) for candidate in candidates]

    source = preparation.load(workspace, Path(data))
    checked = preparation.validate(workspace, source)
    roles = preparation.split(workspace, source)
    held = preparation.enter(workspace, source, roles, specs)
    if held.unchanged:
        return held.unchanged

    with on_record(workspace, held):
        training = [competition.train.submit(workspace, held, entrant) for entrant in held.entrants]
        entrants = competition.survivors(workspace, held, [future.result() for future in training])
        costs = competition.profile(workspace, held, entrants)
        challenge = competition.build(workspace, held, entrants, costs)
        trial = competition.judge(workspace, held, entrants, costs, challenge)

        summary = conclusion.summarise(workspace, held, checked, entrants, costs, challenge, trial)
        version = conclusion.register(workspace, held, challenge, trial, summary)
        decision = conclusion.decide(workspace, held, trial, version)
        promoted = conclusion.promote(workspace, held, version, decision)
        return conclusion.finish(workspace, held, summary, version, decision, promoted)
