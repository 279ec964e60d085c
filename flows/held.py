"""What the stages of one tournament hand to each other: folders, ids and small records, never frames."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from registry.errors import TournamentError
from registry.models import EnsembleVersion
from registry.tournaments import Attempt
from registry.workspace import Workspace
from tasks.candidates.enter import Entrant
from tasks.report.summary import Summary

# Nothing is cached or persisted by Prefect: each stage keeps its own result under its inputs, for any later run.
stage_task = partial(task, cache_policy=NO_CACHE, persist_result=False)


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
class Outcome:
    """What a tournament came to. `unchanged`: it had been held before, and nothing has changed since."""

    summary: Summary
    report: Path
    unchanged: bool = False


@dataclass(frozen=True)
class Held:
    """A tournament that is being held."""

    attempt: Attempt
    source: Source
    roles: Roles
    entrants: list[Entrant] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    champion: EnsembleVersion | None = None
    started: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))
    unchanged: Outcome | None = None

    @property
    def id(self) -> str:
        return self.attempt.tournament


@contextmanager
def on_record(workspace: Workspace, held: Held) -> Iterator[None]:
    """Record in the ledger why a tournament could not go on."""
    try:
        yield
    except TournamentError as error:
        workspace.ledger.fail_tournament(held.id, str(error))
        raise


def recall(workspace: Workspace, tournament: str) -> Outcome:
    """Return the outcome of a tournament that was held before."""
    folder = reports_folder(workspace, tournament)
    return Outcome(Summary.read(folder / "summary.json"), folder / "report.html", unchanged=True)


def reports_folder(workspace: Workspace, tournament: str) -> Path:
    """Return the folder of a tournament's report."""
    return workspace.folder("tournaments", tournament)
