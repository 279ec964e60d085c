"""The progress of a tournament: a file in the home for the command line; on a Prefect server also artifacts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.logging import get_logger
from prefect.settings import PREFECT_API_URL

from esci_tournament.flows import progress_reporting
from esci_tournament.flows.context import TournamentOutcome
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.report.progress import (
    STORED,
    Told,
    forget_progress,
    is_candidate,
    overall,
    running,
    write_progress,
)
from esci_tournament.tasks.report.table import as_markdown

TICK_S = 3.0


@contextmanager
def published(workspace: Workspace) -> Iterator[None]:
    """Publish progress while the block runs: a file for other processes, and an artifact if a Prefect server is set.

    A reporter that is set already goes on hearing all of it. The caller holds the lock of the home's tournaments, so
    what is in the folder is of runs that were killed.

    Args:
        workspace: The home, whose folder `progress` gets a file for the run.

    Yields:
        Nothing; the file is removed after the block.
    """
    run = runtime.flow_run.id
    if not run:
        yield
        return
    heard = progress_reporting.current()
    progress = _Progress(workspace, run, bool(PREFECT_API_URL.value()) and heard is None, heard)
    for killed in running(progress.folder):
        forget_progress(progress.folder, killed)
    thread = threading.Thread(target=progress.keep_telling, name="progress", daemon=True)
    thread.start()
    try:
        with progress_reporting.to(progress.report):
            yield
    finally:
        progress.ended.set()
        thread.join()
        forget_progress(progress.folder, run)


def publish_outcome(outcome: TournamentOutcome) -> None:
    """Put a tournament's table into Prefect as a markdown artifact, once for each tournament. Never raises."""
    if not runtime.flow_run.id or not PREFECT_API_URL.value():
        return
    key = f"tournament-{outcome.summary.tournament}"
    try:
        with get_client(sync_client=True) as client:
            if client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])), limit=1):
                return
            content = ArtifactCreate(
                key=key,
                type="markdown",
                description="What the tournament came to",
                data=f"{as_markdown(outcome.summary)}\n\nReport: `{outcome.report}`\n",
                flow_run_id=UUID(runtime.flow_run.id),
            )
            client.create_artifact(content)
    except Exception as error:  # a tournament must not fail because its table cannot be shown
        get_logger("progress").warning("no summary of %s in Prefect: %s", outcome.summary.tournament, error)


class _Progress:
    def __init__(self, workspace: Workspace, run: str, served: bool, heard: progress_reporting.Reporter | None) -> None:
        self.run, self.folder = run, workspace.folder("progress")
        self.ended = threading.Event()
        self._served, self._heard = served, heard
        self._shares: dict[str, float] = {}
        self._candidates: dict[str, tuple[float, str]] = {}
        self._stored: set[str] = set()
        self._doing = "starts"
        self._artifact: UUID | None = None
        self._told: Told | None = None
        self._lock = threading.Lock()

    def report(self, name: str, share: float, doing: str) -> None:
        """Take what a stage reports, from whichever thread."""
        with self._lock:
            self._shares[name] = share
            self._doing = f"{name}: {doing}" if doing else name
            if is_candidate(name):
                self._candidates[name] = share, doing
                if doing == STORED:
                    self._stored.add(name)
        if self._heard is not None:
            self._heard(name, share, doing)

    def keep_telling(self) -> None:
        """Tell every few seconds, beside the work, until the end."""
        while not self.ended.wait(TICK_S):
            self._tell()
        self._tell(last=True)

    def _tell(self, last: bool = False) -> None:
        with self._lock:
            now = Told(overall(self._shares, self._stored), self._doing, dict(self._candidates))
        if now == self._told:
            return
        try:
            if not last:
                write_progress(self.folder, self.run, now)
            if self._served:
                self._to_prefect(100 * now.share, now.doing)
            self._told = now
        except Exception as error:  # it is told again with the next tick
            get_logger("progress").debug("progress was not told: %s", error)

    def _to_prefect(self, percent: float, doing: str) -> None:
        data: Any = round(percent, 1)
        with get_client(sync_client=True) as client:
            if self._artifact is None:
                made = client.create_artifact(
                    ArtifactCreate(
                        key=f"progress-{self.run}", type="progress", description=doing, data=data,
                        flow_run_id=UUID(self.run),
                    )
                )  # fmt: skip
                self._artifact = made.id
            else:
                client.update_artifact(self._artifact, ArtifactUpdate(data=data, description=doing))
