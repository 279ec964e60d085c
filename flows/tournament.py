"""The tournament, as a story: one Prefect flow, each stage a task, each stage stored under its inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow

from flows import stages
from flows.stages import Outcome
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

    source = stages.load(workspace, Path(data))
    checks = stages.validate(workspace, source)
    roles = stages.split(workspace, source)
    held = stages.enter(workspace, source, roles, specs)
    if held.unchanged:
        return held.unchanged

    training = [stages.train.submit(workspace, held, entrant) for entrant in held.entrants]
    standing = stages.survivors(workspace, held, [future.result() for future in training])
    costs = stages.profile(workspace, held, standing)
    challenge = stages.build(workspace, held, standing, costs)
    verdict = stages.judge(workspace, held, challenge)

    summary = stages.summarise(workspace, held, checks, standing, costs, challenge, verdict)
    version = stages.register(workspace, held, challenge, verdict, summary)
    decision = stages.decide(workspace, held, verdict)
    promoted = stages.promote(workspace, held, version, decision)
    return stages.finish(workspace, held, summary, version, decision, promoted)
