"""`tournament ledger`, and what `doctor` says of a ledger that somebody wrote to past it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from esci_tournament.deployments.cli.doctor import check_chain
from esci_tournament.registry.errors import ChainError
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.settings import read_settings
from esci_tournament.registry.workspace import Workspace

Run = Callable[..., Any]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home whose ledger has a few rows."""
    (tmp_path / "home").mkdir()
    with Ledger.open(f"sqlite:///{tmp_path / 'home' / 'ledger.db'}", who="ann@host") as ledger:
        ledger.record_data_version("data-1")
        ledger.start_tournament("t1", "data-1")
        verdict = ledger.record_verdict("t1", "refuse")
        ledger.record_decision(verdict.id, "refuse", "ann", "too dear")
    return tmp_path / "home"


@pytest.fixture
def ledger(tournament: Run, home: Path) -> Run:
    """Run a part of `tournament ledger`."""
    return lambda *said: tournament("ledger", *said, "--home", home, "--json")


def harm(home: Path, *statements: str) -> None:
    with closing(sqlite3.connect(home / "ledger.db")) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def test_a_rewritten_ledger_is_told_by_verify_and_doctor_and_gets_no_checkpoint(ledger: Run, home: Path) -> None:
    """L1.3: DROP TRIGGER, then UPDATE reviewer and DELETE a row; doctor said ok."""
    assert "5 entries verified" in check_chain(Workspace(read_settings(home=home)))
    verified = ledger("verify")
    assert (verified.code, verified.document["count"]) == (0, 0), verified.err
    harm(
        home,
        "DROP TRIGGER decisions_no_update",
        "DROP TRIGGER verdicts_no_delete",
        "UPDATE decisions SET reviewer = 'ben'",
        "DELETE FROM verdicts",
    )
    answer = ledger("verify")
    assert answer.code == 14
    for words in (
        "row 1 of decisions was changed (entry 5, written 20",
        "row 1 of verdicts is gone",
        "the trigger decisions_no_update is missing",
        "the trigger verdicts_no_delete is missing",
    ):
        assert words in answer.err
    assert "restore the last backup that verifies" in answer.err
    assert ledger("checkpoint").code == 14
    with pytest.raises(ChainError, match=r"is missing.*tournament ledger repair"):
        check_chain(Workspace(read_settings(home=home)))


def test_triggers_that_were_dropped_come_back_by_repair_alone_and_stay_on_record(
    ledger: Run, tournament: Run, home: Path
) -> None:
    harm(home, "DROP TRIGGER decisions_no_update")
    assert tournament("policy", "show", "--home", home).code == 0
    assert ledger("verify").code == 14, "no command puts it back without a word"
    assert ledger("repair", "--reason", " ").code == 2
    repaired = ledger("repair", "--reason", "a test")
    assert repaired.document["repaired"] == {"decisions_no_update": "the trigger decisions_no_update is missing"}
    verified = ledger("verify")
    assert verified.code == 0
    assert "triggers were put back (the trigger decisions_no_update is missing)" in verified.document["notes"][0]
    assert ledger("repair", "--reason", "again").document["repaired"] == {}


def test_a_checkpoint_that_is_kept_elsewhere_notices_a_ledger_that_was_made_anew(
    ledger: Run, home: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "kept.json"
    assert ledger("checkpoint", "--out", kept).code == 0
    assert json.loads(kept.read_text())["entries"] == 5
    assert ledger("checkpoint", "--out", kept).code == 2, "never over another"
    (tmp_path / "said.json").write_text(json.dumps(ledger("checkpoint").document))
    assert ledger("verify", "--checkpoint", kept, "--checkpoint", tmp_path / "said.json").code == 0
    for path in home.iterdir():
        path.unlink()
    assert ledger("verify").code == 0, "a new home cannot know"
    answer = ledger("verify", "--checkpoint", kept)
    assert answer.code == 14
    assert "of another ledger, or the whole chain was made anew" in answer.err
    assert ledger("verify", "--checkpoint", tmp_path / "absent.json").code == 2
    (tmp_path / "no.json").write_text("{}")
    assert ledger("verify", "--checkpoint", tmp_path / "no.json").code == 2


def test_migrate_says_the_schema_and_sqlite_has_no_roles(ledger: Run) -> None:
    assert [one["version"] for one in ledger("migrate").document] == [4]
    answer = ledger("grant", "worker", "somebody")
    assert answer.code == 2
    assert "no roles" in answer.err
