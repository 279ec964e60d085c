"""What a re-evaluation leaves in the ledger: once for each tournament, and each time that nothing had changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from esci_tournament.flows import renewal
from esci_tournament.flows.context import Renewed, Roles, Source, TournamentContext, TournamentOutcome
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.tournaments import Attempt
from esci_tournament.registry.workspace import Workspace
from tests.tasks.report.conftest import build

BEFORE = {"tournament": "t-0", "metrics": {"all": {"macro_f1": 0.5}}}
DRIFT = {"rows": [{"drifted": True, "words": "class mix"}, {"drifted": False, "words": "queries"}]}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(Settings(home=tmp_path))
    made.ledger.record_data_version("data")
    made.ledger.start_tournament("t-1", "data")
    return made


def context(champion: int | None = None) -> TournamentContext:
    source = Source(Path(), "data", Path())
    attempt = Attempt("t-1", "new", 0, champion)
    return TournamentContext(attempt, source, Roles(Path(), "roles"), excluded={"gone/1": "no model"})


def record(workspace: Workspace, unchanged: bool = False) -> dict[str, Any]:
    outcome = TournamentOutcome(build(tournament="t-1"), Path("report.html"), unchanged)
    return renewal.record.fn(workspace, context(), outcome, BEFORE, DRIFT, True).facts


def test_what_was_found_is_on_record_once_however_often_it_is_told(workspace: Workspace) -> None:
    first, again = record(workspace), record(workspace)
    assert first == again
    [event] = workspace.ledger.events("t-1", renewal.EVENT)
    assert {name: event.payload[name] for name in first} == first
    assert first["kept"] == ["minilm-l6/3", "gatv2-clicks/1", "e5-small/1"]
    assert (first["drifted"], first["excluded"], first["verdict"]) == (["class mix"], {"gone/1": "no model"}, "promote")
    assert event.payload["words"].startswith("Champion and bench evaluated again")


def test_that_nothing_had_changed_is_on_record_each_time(workspace: Workspace) -> None:
    for _ in range(2):
        assert set(record(workspace, unchanged=True)) == {"unchanged", "data_version", "champion", "trial", "serves"}
    events = workspace.ledger.events("t-1", renewal.EVENT)
    assert [event.payload["unchanged"] for event in events] == [True, True]


def test_without_a_champion_nothing_was_measured_before(workspace: Workspace) -> None:
    assert renewal.champion_before.fn(workspace, context()) == {}


@pytest.mark.filterwarnings("ignore::FutureWarning:prefect")  # outside of a flow, as nowhere else
def test_nothing_fails_for_want_of_a_picture(broken_api: str) -> None:
    facts = {"unchanged": True, "data_version": "data", "champion": ""}
    renewed = Renewed(TournamentOutcome(build(), Path("report.html"), True), facts)
    for address in (None, broken_api):
        with temporary_settings({PREFECT_API_URL: address}):
            renewal.publish(renewed)
