"""The tournament: one Prefect flow, each stage a task whose result is stored under its inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from prefect import flow

from esci_tournament.flows import compared, competition, conclusion, preparation
from esci_tournament.flows.context import Checked, TournamentContext, TournamentOutcome, on_record
from esci_tournament.flows.governed import data_of_run, workspace_of_run
from esci_tournament.flows.progress import publish_outcome, published
from esci_tournament.flows.progress_reporting import report_progress
from esci_tournament.flows.turn import turn
from esci_tournament.registry.specs import CandidateSpec
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.report.progress import WAITS

_entering: ContextVar[tuple[CandidateSpec, ...]] = ContextVar("entering", default=())


@contextmanager
def entering(specs: Sequence[CandidateSpec]) -> Iterator[None]:
    """Let candidates that are not registered yet enter the tournaments of this process while the block runs.

    Specs are no parameter of the flow: whoever may start a run in Prefect may name registered versions, and no more.
    """
    token = _entering.set(tuple(specs))
    try:
        yield
    finally:
        _entering.reset(token)


@flow(name="tournament", flow_run_name="tournament on {data}", validate_parameters=False)
def tournament(
    data: str | None = None,
    versions: list[str] | None = None,
) -> TournamentOutcome:
    """Hold one tournament.

    Args:
        data: Folder with the official files of the Shopping Queries Dataset, or where they come from: a URL, `sql`;
            default: the setting `data`.
        versions: Ids (`name/version`) of registered candidates that enter; with none, and no specs given by
            :func:`entering`, all enter that wait in MLflow.

    Returns:
        The outcome, with summary and report.

    Raises:
        TournamentError: One of our errors, such as DataError for data that cannot be used, NotFoundError when no
            candidate enters, BusyError while another tournament is held, or PolicyError for settings that ask for
            less than the policy.
    """
    workspace = workspace_of_run()
    with turn(workspace), published(workspace):
        outcome = run_stages(workspace, data_of_run(workspace, data), _entering.get(), versions or [])
        publish_outcome(outcome)
        return outcome


def run_stages(
    workspace: Workspace, data: str | None, specs: Sequence[CandidateSpec], versions: Sequence[str]
) -> TournamentOutcome:
    """Hold one tournament, inside a flow that holds the locks.

    Args:
        workspace: Settings and stores.
        data: Folder, URL or `sql`.
        specs: Candidates that enter; registered when they are new.
        versions: Ids (`name/version`) of registered candidates that enter. With neither, all enter that wait in MLflow.

    Returns:
        The outcome; the one that stands when the tournament has been held before.
    """
    source = preparation.load(workspace, preparation.fetch(workspace, data))
    checked = preparation.validate(workspace, source)
    roles = preparation.split(workspace, source)
    context = preparation.enter(workspace, source, roles, specs, versions)
    if context.unchanged:
        return context.unchanged
    return compete(workspace, context, checked)


def compete(workspace: Workspace, context: TournamentContext, checked: Checked) -> TournamentOutcome:
    """Hold the rest of a tournament whose entrants are known, in whatever way they came to enter.

    Args:
        workspace: Settings and stores.
        context: The tournament and its entrants.
        checked: The checks of its data.

    Returns:
        The outcome.

    Raises:
        CandidateError: If no candidate could be trained, scored and measured.
        BudgetError: If no ensemble fits the budget.
        StoppedError: If somebody cancelled it.
    """
    with workspace.ledger.working_on(context.id), on_record(workspace, context):
        for entrant in context.entrants:
            report_progress(entrant.id, 0.0, WAITS)
        training = [competition.train.submit(workspace, context, entrant) for entrant in context.entrants]
        entrants = competition.survivors(workspace, context, [future.result() for future in training])
        costs = competition.profile(workspace, context, entrants)
        while True:  # again when a candidate is cancelled while the challenger is built
            entrants = competition.remaining(workspace, context, entrants)
            challenge = competition.build(workspace, context, entrants, costs)
            if challenge is not None:
                break
        competition.heed(workspace, context)
        trial = competition.judge(workspace, context, entrants, costs, challenge)

        summary = conclusion.summarise(workspace, context, checked, entrants, costs, challenge, trial)
        compared.log_candidates(workspace, context, summary)
        version = conclusion.register(workspace, context, challenge, trial, summary)
        decision = conclusion.decide(workspace, context, trial, version)
        promoted = conclusion.promote(workspace, context, version, decision)
        return conclusion.finish(workspace, context, summary, version, decision, promoted)
