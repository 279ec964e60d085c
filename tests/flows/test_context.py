"""What stages hand to each other, and what is on record when one of them fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from esci_tournament.flows.context import Roles, Source, TournamentContext, on_record, recall
from esci_tournament.flows.report_files import write_report
from esci_tournament.registry.errors import DataError
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.tournaments import Attempt
from esci_tournament.registry.workspace import Workspace
from tests.tasks.report.conftest import build


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(Settings(home=tmp_path / "home"))
    made.ledger.record_data_version("data")
    made.ledger.start_tournament("t-1", "data")
    return made


def context(judged: Roles | None = None) -> TournamentContext:
    source = Source(Path(), "data", Path())
    return TournamentContext(Attempt("t-1", "new", 0, None), source, Roles(Path("all"), "roles"), judged=judged)


def test_why_a_tournament_could_not_go_on_is_on_record(workspace: Workspace) -> None:
    with pytest.raises(DataError, match="no products"), on_record(workspace, context()):
        raise DataError("no products")
    [failed] = workspace.ledger.events("t-1", "failed")
    assert "no products" in str(failed.payload)


def test_what_is_no_error_of_ours_leaves_the_tournament_to_be_continued(workspace: Workspace) -> None:
    with pytest.raises(KeyboardInterrupt), on_record(workspace, context()):
        raise KeyboardInterrupt
    assert workspace.ledger.events("t-1", "failed") == []


def test_an_outcome_is_the_same_when_it_is_recalled_but_for_being_old(workspace: Workspace) -> None:
    summary = build(tournament="t-1")
    report = write_report(workspace, summary, with_figures=False)
    again = recall(workspace, "t-1")
    assert (again.summary, again.report, again.unchanged) == (summary, report, True)


def test_pairs_are_judged_by_all_roles_unless_some_models_have_seen_queries() -> None:
    assert context().judged_roles.key == "roles"
    assert context(Roles(Path("some"), "judged")).judged_roles.key == "judged"
