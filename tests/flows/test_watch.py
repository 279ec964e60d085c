"""A sweep: candidates enter once, unreadable ones are refused with a reason, an alias moved by hand is reported."""

from __future__ import annotations

import json

from esci_tournament.flows.watch import DRIFTED, MENDED, TAMPERED, Watch
from esci_tournament.registry.errors import StoreError
from esci_tournament.registry.models import CHAMPION
from esci_tournament.registry.promotion import promote
from esci_tournament.registry.queue import Queue
from esci_tournament.registry.specs import parse_spec
from esci_tournament.registry.workspace import Workspace
from tests.flows.conftest import SPEC, plain, state, sweep


def test_candidates_enter_once_however_they_were_registered_and_whoever_watches(workspace):
    first = workspace.models.register_candidate(parse_spec({"name": "ours"} | SPEC))
    second = plain(workspace, "plain", json.dumps(SPEC))
    watches = [Watch(workspace), Watch(workspace)]
    assert [sweep(watch) for watch in watches] == [["ours/1 is queued", "plain/1 is queued"], []]
    assert [sweep(watch, first.id, second) for watch in watches] == [[], []]
    assert [one.candidate for one in Queue(workspace.ledger).waiting()] == [first.id, second]
    assert state(workspace, first.id) == state(workspace, second) == ("queued", "")
    assert {one.candidate for one in workspace.ledger.candidates()} == {first.id, second}


def test_what_cannot_be_checked_now_is_checked_later_and_keeps_nobody_out(workspace, monkeypatch):
    for name in ("a", "b"):
        plain(workspace, name, json.dumps(SPEC))
    watch = Watch(workspace)
    with monkeypatch.context() as patched:
        patched.setattr(
            "esci_tournament.flows.intake.readable", lambda version, _: 1 / 0 if version.name == "a" else ""
        )  # such as a file system that is gone
        swept = watch.sweep()
    assert [type(error) for error in swept.errors] == [ZeroDivisionError]
    assert [one.candidate for one in Queue(workspace.ledger).waiting()] == ["b/1"]
    assert sweep(watch) == ["a/1 is queued"]


def test_a_registry_that_is_gone_keeps_nothing_else_from_being_done(workspace, monkeypatch):
    version = workspace.models.register_candidate(parse_spec({"name": "early"} | SPEC))
    watch = Watch(workspace)
    sweep(watch)
    workspace.ledger.record_event("candidate_failed", version.id, None, {"reason": "x"})
    with monkeypatch.context() as patched:
        patched.setattr(workspace.models.tracking, "search_some", lambda *_: (_ for _ in ()).throw(OSError("refused")))
        swept = watch.sweep()
    assert [type(error) for error in swept.errors] == [StoreError]
    assert sweep(watch) == []


def test_an_alias_that_was_moved_by_hand_is_told_once_for_each_time(workspace, tmp_path):
    ledger, models = workspace.ledger, workspace.models
    folder = tmp_path / "ensemble"
    folder.mkdir()
    (folder / "anything").write_text("x", encoding="utf-8")
    ledger.record_data_version("data")
    versions = []
    for number in (1, 2):
        ledger.start_tournament(f"t-{number}", "data")
        verdict = ledger.record_verdict(f"t-{number}", "promote", against=number - 1)
        versions.append(models.register_ensemble(folder, [], f"t-{number}"))
        ledger.record_ensemble(f"t-{number}", models.ensemble_name, number)
        decision = ledger.record_decision(verdict.id, "approve", "somebody", "better")
        promote(ledger, models, versions[-1], decision, number - 1)
    watch = Watch(workspace)
    assert sweep(watch) == []
    for _ in range(2):
        models.set_alias(CHAMPION, 1)
        [said] = sweep(watch)
        assert "moved by hand" in said
        assert sweep(Watch(workspace)) == []
        models.set_alias(CHAMPION, 2)
        assert sweep(watch) == ["the aliases of esci-ensemble say what the ledger says again"]
    assert [len(ledger.events(kind=kind)) for kind in (DRIFTED, MENDED)] == [2, 2]


def test_a_ledger_that_was_tampered_with_is_told_once(workspace):
    """L1.3: history was rewritten after a trigger had been dropped, and nobody was told."""
    workspace.ledger.record_event("one", "")
    often = Workspace(workspace.settings.model_copy(update={"verify_ledger_s": 1e-9}))
    watch = Watch(often)
    assert sweep(watch) == []
    with often.ledger.writing() as rows:
        rows.connection.exec_driver_sql("DROP TRIGGER events_no_update")
        rows.connection.exec_driver_sql("UPDATE events SET who = 'nobody' WHERE kind = 'one'")
    [said] = sweep(watch)
    assert "row 1 of events was changed" in said
    assert "the trigger events_no_update is missing" in said
    assert sweep(watch) == sweep(Watch(often)) == []
    assert len(often.ledger.events(kind=TAMPERED)) == 1
