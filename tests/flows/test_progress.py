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
from esci_tournament.flows.progress_reporting import is_heard, report_progress, to
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.report.progress import read_progress
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
        report_progress("sage", 0.0, "waits")
        report_progress("load", 1.0, "done")
        report_progress("sage", 0.5, "epoch 3")

        def told() -> float:
            found = read_progress(folder, run)
            return found[0] if found is not None and found[1] == "sage: epoch 3" else 0.0

        assert 0.3 < until(told, 20, "told") < 0.6
    assert read_progress(folder, run) is None
    assert not is_heard()


def test_what_is_no_run_on_a_server_tells_nobody(workspace: Workspace, api: str) -> None:
    with temporary_settings({PREFECT_API_URL: api}), published(workspace):
        assert not is_heard()
    assert not workspace.settings.home.exists()


def test_a_run_without_a_server_tells_nobody(workspace: Workspace, run: str) -> None:
    with temporary_settings(restore_defaults={PREFECT_API_URL}), published(workspace):
        assert not is_heard()
    assert not workspace.settings.home.exists()


def test_whoever_listens_already_goes_on_hearing(workspace: Workspace, run: str, api: str) -> None:
    heard: list[str] = []
    listener = to(lambda name, share, doing: heard.append(name))
    with listener, temporary_settings({PREFECT_API_URL: api}), published(workspace):
        report_progress("load", 0.5)
    assert heard == ["load"]
    assert not workspace.settings.home.exists()


def test_an_outcome_that_cannot_be_shown_fails_nobody(run: str, api: str) -> None:
    with temporary_settings({PREFECT_API_URL: api}):
        publish_outcome(TournamentOutcome(build(), Path("report.html")))
