"""How far a served tournament is: a file while it runs, whatever becomes of Prefect's server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.context import refresh_global_settings_context
from prefect.settings import PREFECT_API_URL, temporary_settings

from esci_tournament.flows import progress
from esci_tournament.flows.context import TournamentOutcome
from esci_tournament.flows.progress import publish_outcome, published
from esci_tournament.flows.progress_reporting import current, report_progress, to
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.report.progress import STORED, WAITS, Told, read_progress, running, write_progress
from tests.harness import until
from tests.tasks.report.conftest import build


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(Settings(home=tmp_path / "home"))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of a flow run that this process is."""
    run = str(uuid.uuid4())
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__ID", run)
    monkeypatch.setattr(progress, "TICK_S", 0.01)
    return run


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, broken_api: str) -> Iterator[str]:
    """The address of a Prefect server that takes nothing, which all threads find in their settings."""
    monkeypatch.setenv("PREFECT_API_URL", broken_api)
    refresh_global_settings_context()
    yield broken_api
    monkeypatch.undo()
    refresh_global_settings_context()


def test_the_command_line_reads_it_while_the_run_lasts_and_finds_nothing_after(
    workspace: Workspace, run: str, api: str
) -> None:
    folder = workspace.folder("progress")
    with temporary_settings({PREFECT_API_URL: api}), published(workspace):
        report_progress("fetch", 1.0, "done")
        report_progress("sage/1", 0.0, WAITS)
        report_progress("old/1", 0.0, WAITS)
        report_progress("old/1", 1.0, STORED)
        report_progress("load", 1.0, "done")

        def told(doing: str) -> Told | None:
            found = read_progress(folder, run)
            return found if found is not None and found.doing == doing else None

        begun = until(lambda: told("load: done"), 20, "told")
        assert begun.share < 0.1, "who has stored scores, and a stage without a weight, say nothing about who waits"
        assert begun.candidates == {"sage/1": (0.0, WAITS), "old/1": (1.0, STORED)}
        report_progress("sage/1", 0.5, "epoch 3")
        half = until(lambda: told("sage/1: epoch 3"), 20, "told")
        assert 0.3 < half.share < 0.6
        assert half.candidates["sage/1"] == (0.5, "epoch 3")
    assert read_progress(folder, run) is None
    assert current() is None


def test_what_is_no_run_tells_nobody(workspace: Workspace, api: str) -> None:
    with temporary_settings({PREFECT_API_URL: api}), published(workspace):
        assert current() is None
    assert not workspace.settings.home.exists()


def test_a_run_without_a_server_tells_other_processes_and_clears_what_a_killed_one_left(
    workspace: Workspace, run: str
) -> None:
    folder = workspace.folder("progress")
    write_progress(folder, "killed", Told(0.4, "sage/1: epoch 1"))
    with temporary_settings(restore_defaults={PREFECT_API_URL}), published(workspace):
        report_progress("load", 0.5)
        assert until(lambda: running(folder), 20, "told").keys() == {run}
    assert running(folder) == {}


def test_whoever_listens_already_goes_on_hearing(workspace: Workspace, run: str, api: str) -> None:
    heard: list[str] = []
    listener = to(lambda name, share, doing: heard.append(name))
    with listener, temporary_settings({PREFECT_API_URL: api}), published(workspace):
        report_progress("load", 0.5)
    assert heard == ["load"]
    assert current() is None


def test_an_outcome_that_cannot_be_shown_fails_nobody(run: str, api: str) -> None:
    with temporary_settings({PREFECT_API_URL: api}):
        publish_outcome(TournamentOutcome(build(), Path("report.html")))
