"""What the stages of one tournament pass to each other: folders, ids and small records, no frames."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE

from esci_tournament.flows.report_files import reports_folder, stored_summary
from esci_tournament.registry.errors import TournamentError
from esci_tournament.registry.tournaments import Attempt
from esci_tournament.registry.versions import EnsembleVersion
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.candidates.enter import Entrant
from esci_tournament.tasks.report.summary import Summary

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def named_stage_task(run_name: str | None) -> Callable[[Callable[Parameters, Result]], Task[Parameters, Result]]:
    """Return a decorator as :func:`stage_task`, under which each run of the stage has a name of its own.

    Args:
        run_name: Name of a run; it may refer to the stage's parameters in braces, as in
            `train {entrant.id}`. None for Prefect's own.

    Returns:
        The decorator, which makes a Prefect task of a function.
    """
    return task(cache_policy=NO_CACHE, persist_result=False, task_run_name=run_name)


def stage_task(stage: Callable[Parameters, Result]) -> Task[Parameters, Result]:
    """Make a Prefect task of a stage.

    Nothing is cached or persisted by Prefect: each stage keeps its own result under its inputs, for any later run.

    Args:
        stage: The function; it is called with the arguments of the task.

    Returns:
        The task.
    """
    return named_stage_task(None)(stage)


@dataclass(frozen=True)
class Source:
    """A loaded data set.

    Attributes:
        folder: Its folder in the stage store.
        version: Digest of its content.
        origin: The folder that it was loaded from.
    """

    folder: Path
    version: str
    origin: Path


@dataclass(frozen=True)
class Roles:
    """The roles of all pairs.

    Attributes:
        folder: Their folder in the stage store.
        key: Its key there.
    """

    folder: Path
    key: str


@dataclass(frozen=True)
class Checked:
    """The checks of a data set.

    Attributes:
        checks: One JSON-able record a check.
        docs: First page of the Data Docs (HTML).
    """

    checks: list[dict[str, Any]]
    docs: Path


@dataclass(frozen=True)
class TournamentOutcome:
    """What a tournament came to.

    Attributes:
        summary: Its final summary.
        report: Its page, `report.html`.
        unchanged: Whether it had been held before, and nothing has changed since.
    """

    summary: Summary
    report: Path
    unchanged: bool = False


@dataclass(frozen=True)
class Renewed:
    """What a re-evaluation came to.

    Attributes:
        outcome: The outcome of its tournament.
        facts: The JSON-able facts that the ledger has of it, as :func:`esci_tournament.flows.renewal.record` puts them.
    """

    outcome: TournamentOutcome
    facts: dict[str, Any]


@dataclass(frozen=True)
class TournamentContext:
    """A tournament that is being held.

    Attributes:
        attempt: Which tournament it is, and which champion it meets.
        source: Its data.
        roles: The role of each pair.
        entrants: The candidates that take part.
        refused: Candidate id -> why it may not take part.
        champion: The ensemble it meets, None when there is none.
        started: When it was recorded (UTC).
        unchanged: The outcome that stands, when nothing has changed since.
        judged: The roles without the pairs whose query a model of older data has seen; None when there are none such.
        drift: What has changed in the data since the last tournament, JSON of
            `esci_tournament.tasks.data.drift.DriftReport`.
        excluded: Candidate id -> why it is not on the bench this time.
        trial: Whether it may not change what serves by itself: a challenger that passes waits for a person.
        differences: Id of a candidate or ensemble version -> in which way MLflow differs from its record.
        begun: Number of the ledger's last event when this run began: who cancelled it before did not mean this run.
    """

    attempt: Attempt
    source: Source
    roles: Roles
    entrants: list[Entrant] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    champion: EnsembleVersion | None = None
    started: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))
    unchanged: TournamentOutcome | None = None
    judged: Roles | None = None
    drift: dict[str, Any] = field(default_factory=dict)
    excluded: dict[str, str] = field(default_factory=dict)
    differences: dict[str, str] = field(default_factory=dict)
    trial: bool = False
    begun: int = 0

    @property
    def id(self) -> str:
        """Id of the tournament."""
        return self.attempt.tournament

    @property
    def judged_roles(self) -> Roles:
        """The roles that decide which pairs the aggregator learns from, and which are judged."""
        return self.judged or self.roles


@contextmanager
def on_record(workspace: Workspace, context: TournamentContext) -> Iterator[None]:
    """Record in the ledger why a tournament could not go on, when the block raises one of our errors.

    Args:
        workspace: The home whose ledger is written.
        context: The tournament.

    Yields:
        Nothing.

    Raises:
        TournamentError: What the block raised, as it is.
    """
    try:
        yield
    except TournamentError as error:
        workspace.ledger.fail_tournament(context.id, str(error))
        raise


def recall(workspace: Workspace, tournament: str) -> TournamentOutcome:
    """Return the outcome of a tournament that was held before in this home.

    Args:
        workspace: The home with the stored report.
        tournament: Id of the tournament.

    Returns:
        The outcome, marked as unchanged.
    """
    page = reports_folder(workspace, tournament) / "report.html"
    return TournamentOutcome(stored_summary(workspace, tournament), page, unchanged=True)
