"""The tournament, as a story: one Prefect flow, each stage a task, each stage stored under its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefect import flow

from esci_tournament.flows import competition, conclusion, preparation
from esci_tournament.flows.held import Checked, Held, Outcome, on_record
from esci_tournament.flows.progress import publish_outcome, published
from esci_tournament.flows.reporting import report
from esci_tournament.flows.turn import turn
from esci_tournament.registry.settings import read_settings
from esci_tournament.registry.specs import CandidateSpec, parse_spec
from esci_tournament.registry.workspace import Workspace


@flow(name="tournament", flow_run_name="tournament on {data}", validate_parameters=False)
def tournament(
    data: str,
    candidates: list[dict[str, Any]] | None = None,
    settings: dict[str, Any] | None = None,
    versions: list[str] | None = None,
) -> Outcome:
    """Hold one tournament.

    Args:
        data: folder with the official files of the Shopping Queries Dataset, or where they come from: a URL, `sql`.
        candidates: specs of the candidates that enter, each a JSON-able dict.
        settings: settings that differ from those of the environment.
        versions: ids (`name/version`) of registered candidates that enter; with neither, all enter that wait in MLflow.
    """
    workspace = Workspace(read_settings(**(settings or {})))
    specs = [parse_spec(candidate) for candidate in candidates or []]
    with turn(workspace), published(workspace):
        outcome = hold(workspace, data, specs, versions or [])
        publish_outcome(outcome)
        return outcome


def hold(workspace: Workspace, data: str, specs: Sequence[CandidateSpec], versions: Sequence[str]) -> Outcome:
    """Hold one tournament, inside a flow and in its turn."""
    source = preparation.load(workspace, preparation.fetch(workspace, data))
    checked = preparation.validate(workspace, source)
    roles = preparation.split(workspace, source)
    held = preparation.enter(workspace, source, roles, specs, versions)
    if held.unchanged:
        return held.unchanged
    return compete(workspace, held, checked)


def compete(workspace: Workspace, held: Held, checked: Checked) -> Outcome:
    """Hold the rest of a tournament whose entrants are known: it is the same however they came to enter."""
    with on_record(workspace, held):
        for entrant in held.entrants:
            report(entrant.version.name, 0.0, "waits")
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
