"""What the stages of one tournament hand to each other: folders, ids and small records, never frames."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE

from esci_tournament.flows.report_files import reports_folder
from esci_tournament.registry.errors import TournamentError
from esci_tournament.registry.tournaments import Attempt
from esci_tournament.registry.versions import EnsembleVersion
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.candidates.enter import Entrant
from esci_tournament.tasks.report.summary import Summary

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def named_stage_task(run_name: str | None) -> Callable[[Callable[Parameters, Result]], Task[Parameters, Result]]:
    """Return a decorator as :func:`stage_task`, under which each run of the stage has a name of its own."""
    return task(cache_policy=NO_CACHE, persist_result=False, task_run_name=run_name)


def stage_task(stage: Callable[Parameters, Result]) -> Task[Parameters, Result]:
    """Make a Prefect task of a stage.

    Nothing is cached or persisted by Prefect: each stage keeps its own result under its inputs, for any later run.
    """
    return named_stage_task(None)(stage)


@dataclass(frozen=True)
class Source:
    """A loaded data set: its folder in the stage store and its version."""

    folder: Path
    version: str
    origin: Path


@dataclass(frozen=True)
class Roles:
    """The roles of all pairs: their folder in the stage store and its key."""

    folder: Path
    key: str


@dataclass(frozen=True)
class Checked:
    """The checks of a data set, each a JSON-able record, and the first page of its Data Docs."""

    checks: list[dict[str, Any]]
    docs: Path


@dataclass(frozen=True)
class TournamentOutcome:
    """What a tournament came to. `unchanged`: it had been held before, and nothing has changed since."""

    summary: Summary
    report: Path
    unchanged: bool = False


@dataclass(frozen=True)
class Renewed:
    """What a re-evaluation came to: the outcome of its tournament, and the JSON-able facts that the ledger has."""

    outcome: TournamentOutcome
    facts: dict[str, Any]


@dataclass(frozen=True)
class TournamentContext:
    """A tournament that is being held.

    Attributes:
        attempt: which tournament it is.
        source, roles: its data, and the role of each pair.
        entrants: who takes part; refused: candidate id -> why it may not.
        champion: the ensemble it meets, None when there is none.
        started: when it was recorded (UTC).
        unchanged: the outcome that stands, when nothing has changed since.
        judged: the roles without the pairs whose query a model of older data has seen; None when there are none such.
        drift: what has changed in the data since the last tournament, JSON of
            `esci_tournament.tasks.data.drift.DriftReport`.
        excluded: candidate id -> why it is not on the bench this time.
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

    @property
    def id(self) -> str:
        return self.attempt.tournament

    @property
    def judged_roles(self) -> Roles:
        """The roles by which pairs are learnt from by the aggregator, and judged."""
        return self.judged or self.roles


@contextmanager
def on_record(workspace: Workspace, context: TournamentContext) -> Iterator[None]:
    """Record in the ledger why a tournament could not go on."""
    try:
        yield
    except TournamentError as error:
        workspace.ledger.fail_tournament(context.id, str(error))
        raise


def recall(workspace: Workspace, tournament: str) -> TournamentOutcome:
    """Return the outcome of a tournament that was held before."""
    folder = reports_folder(workspace, tournament)
    return TournamentOutcome(Summary.read(folder / "summary.json"), folder / "report.html", unchanged=True)
