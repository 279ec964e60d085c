"""`tournament reevaluate`: what it shows of champion and bench, or that nothing changed."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from esci_tournament.deployments.cli.common import Output
from esci_tournament.deployments.cli.reevaluate import show
from esci_tournament.flows.context import Renewed, TournamentOutcome
from tests.tasks.report.conftest import build
from tests.tasks.report.test_renewal import FACTS

DRIFT = {"rows": [], "sentence": "Two of 20 quantities have drifted."}


def shown(facts: dict[str, Any], capfd: pytest.CaptureFixture[str], as_json: bool = False, **changes: Any) -> str:
    """Return what people read of a re-evaluation, or the document of machines."""
    outcome = TournamentOutcome(build(**changes), Path("report.html"), facts["unchanged"])
    with closing(Output(as_json)) as output:
        show(Renewed(outcome, facts), output)
    return capfd.readouterr().out


def test_champion_drift_and_who_stayed_away_are_told_under_the_table(capfd: pytest.CaptureFixture[str]) -> None:
    said = shown(FACTS, capfd, drift=DRIFT)
    assert said.index("minilm-l6") < said.index("Macro F1 of esci-ensemble/1: 0.500 before, 0.450 now.")
    assert "Two of 20 quantities have drifted." in said
    assert "not on the bench: gone/1 (failed in t-1: *no* memory | left)" in said
    assert said.endswith("report: report.html\n")


def test_when_nothing_changed_no_table_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    facts = {"unchanged": True, "data_version": "abcdef0123456789", "champion": "esci-ensemble/1"}
    said = shown(facts, capfd)
    assert said.startswith("Nothing has changed")
    assert "minilm-l6" not in said


def test_the_document_has_the_facts_of_the_ledger_beside_the_summary(capfd: pytest.CaptureFixture[str]) -> None:
    document = json.loads(shown(FACTS, capfd, as_json=True))
    assert document["reevaluation"] == FACTS
    assert (document["unchanged"], document["report"]) == (False, "report.html")
    assert document["tournament"] == build().tournament
