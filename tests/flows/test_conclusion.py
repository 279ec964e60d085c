"""From a verdict to a champion: who may serve, who decides, and what is closed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from esci_tournament.flows import conclusion
from esci_tournament.flows.conclusion import wins
from esci_tournament.flows.context import Roles, Source, TournamentContext, recall
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.tournaments import Attempt
from esci_tournament.registry.versions import EnsembleVersion
from esci_tournament.registry.workspace import Workspace
from tests.flows.conftest import say
from tests.tasks.report.conftest import build


def trial(outcome: str, *missing: str) -> Any:
    """Return what the last stages read of a trial."""
    return SimpleNamespace(verdict=SimpleNamespace(outcome=outcome, missing=missing, reason="it is better"))


def held(champion: int | None = None) -> TournamentContext:
    source, roles = Source(Path(), "data", Path()), Roles(Path(), "roles")
    return TournamentContext(Attempt("t-1", "new", 0, champion), source, roles)


@pytest.mark.parametrize(
    ("outcome", "missing", "champion", "inaugurate", "expected"),
    [
        ("promote", (), 1, True, True),
        ("promote", (), 1, False, True),
        ("refuse", (), 1, True, False),
        ("not_evaluable", ("champion",), None, True, True),
        ("not_evaluable", ("champion",), None, False, False),
        ("not_evaluable", ("queries",), None, True, False),
        ("not_evaluable", ("members",), 1, True, False),
    ],
)
def test_a_challenger_may_serve_when_it_is_better_or_the_first(
    outcome, missing, champion, inaugurate, expected, tmp_path
) -> None:
    workspace = Workspace(Settings(home=tmp_path, inaugurate=inaugurate))
    assert wins(workspace, held(champion), trial(outcome, *missing)) is expected


@pytest.fixture
def version(workspace: Workspace, tmp_path: Path) -> EnsembleVersion:
    """A challenger that is registered, in a tournament that nobody has decided on."""
    workspace.ledger.record_data_version("data")
    workspace.ledger.start_tournament("t-1", "data")
    workspace.ledger.record_verdict("t-1", "promote")
    folder = tmp_path / "ensemble"
    folder.mkdir()
    (folder / "anything").write_text("x", encoding="utf-8")
    made = workspace.models.register_ensemble(folder, ["a/1"], "t-1")
    workspace.ledger.record_ensemble("t-1", made.name, made.version)
    return made


def test_where_nobody_reviews_the_verdict_decides_and_promotes_once(workspace, version) -> None:
    for _ in range(2):
        decision = conclusion.decide.fn(workspace, held(), trial("promote"), version)
        assert (decision.outcome, decision.reviewer) == ("approve", "the verdict (no review in this run)")
        promoted = conclusion.promote.fn(workspace, held(), version, decision)
        assert promoted.version == version.version
    assert len(workspace.ledger.decisions()) == len(workspace.ledger.history("esci-ensemble")) == 1
    assert workspace.models.alias("champion") == version.version


def test_where_somebody_reviews_nothing_is_decided_and_nothing_promoted(workspace, version) -> None:
    asked = Workspace(workspace.settings.model_copy(update={"review": "required"}))
    assert conclusion.decide.fn(asked, held(), trial("promote"), version) is None
    assert conclusion.promote.fn(asked, held(), version, None) is None
    assert workspace.models.alias("champion") is None


def test_after_a_trial_a_person_decides_whatever_the_settings_say(workspace, version) -> None:
    context = replace(held(), trial=True)
    assert conclusion.decide.fn(workspace, context, trial("promote"), version) is None
    assert workspace.ledger.decisions() == []


def test_a_challenger_that_was_not_registered_is_not_decided_on(workspace) -> None:
    assert conclusion.decide.fn(workspace, held(), trial("refuse"), None) is None
    assert workspace.ledger.decisions() == []


@pytest.mark.parametrize("reviewed", [False, True])
def test_the_report_that_is_closed_says_what_was_decided_or_that_it_waits(reviewed, workspace, version) -> None:
    decision = None if reviewed else conclusion.decide.fn(workspace, held(), trial("promote"), version)
    promoted = conclusion.promote.fn(workspace, held(), version, decision)
    outcome = conclusion.close(workspace, held(), build(tournament="t-1"), version, decision, promoted)
    assert (outcome.summary.promoted, outcome.summary.awaits_review) == (not reviewed, reviewed)
    assert outcome.summary.ensemble_version == str(version.version)
    assert outcome.summary.review == (workspace.ledger.verdicts("t-1")[0].id if reviewed else None)
    assert recall(workspace, "t-1").summary == outcome.summary
    [event] = workspace.ledger.events("t-1", "finished")
    assert event.payload == {"sequence": 0 if reviewed else 1, "report": str(outcome.report)}


@pytest.mark.slow
@pytest.mark.parametrize("ui", [None, "https://mlflow.example"])
def test_messages_of_a_tournament_lead_somebody_at_another_machine_to_its_report(ui, make_world, announced) -> None:
    """The verdict's report was a path on the disk of the worker."""
    world = make_world(mlflow_ui=ui)
    held = world.hold("t-1", ["weak"])
    conclusion._tell(world.workspace, held.summary)
    say(world, world.case(1), outcome="refuse", reason="not now")
    verdict, review = (event["payload"] for event in announced)
    for payload in (verdict, review):
        assert str(world.workspace.settings.home) not in str(payload)
        assert "models:/" not in str(payload)
        if ui:
            assert payload["links"]["Full report"].startswith("https://mlflow.example/#/experiments/")
        else:
            assert "Full report" not in payload["links"]
            assert "Full report: run `tournament report t-1`." in payload["text"]
