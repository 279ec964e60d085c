"""A sweep: candidates enter once, unreadable ones are refused with a reason, an alias moved by hand is reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from esci_tournament.flows.dispatch import _failure
from esci_tournament.flows.watch import DRIFTED, MENDED, Watch
from esci_tournament.registry.errors import StoreError
from esci_tournament.registry.models import CHAMPION
from esci_tournament.registry.promotion import promote
from esci_tournament.registry.queue import Queue
from esci_tournament.registry.settings import read_settings
from esci_tournament.registry.specs import parse_spec
from esci_tournament.registry.versions import FAILED_TAG, REFUSED_TAG, SPEC_TAG, STATE_TAG
from esci_tournament.registry.workspace import Workspace

SPEC = {"family": "graph_network", "architecture": "gcn"}


@pytest.fixture
def workspace(tmp_path: Path, empty_mlflow: bytes) -> Workspace:
    (tmp_path / "mlflow.db").write_bytes(empty_mlflow)
    return Workspace(read_settings(home=tmp_path, review="none"))


def plain(workspace: Workspace, name: str, tag: str) -> str:
    """Register a version by plain MLflow, and return its id."""
    client = workspace.models.tracking.client
    client.create_registered_model(name)
    client.create_model_version(name, "file:///nowhere", tags={SPEC_TAG: tag})
    return f"{name}/1"


def state(workspace: Workspace, candidate: str) -> tuple[str | None, str]:
    """Return what the tags of a candidate say: its state, and why it was refused."""
    tags = workspace.models.tags(candidate)
    return tags.get(STATE_TAG), tags.get(REFUSED_TAG, "")


def sweep(watch: Watch, *named: str) -> list[str]:
    swept = watch.sweep(named)
    assert swept.errors == []
    return swept.done


def test_candidates_enter_once_however_they_were_registered_and_whoever_watches(workspace):
    first = workspace.models.register_candidate(parse_spec({"name": "ours"} | SPEC))
    second = plain(workspace, "plain", json.dumps(SPEC))
    watches = [Watch(workspace), Watch(workspace)]
    assert [sweep(watch) for watch in watches] == [["ours/1 is queued", "plain/1 is queued"], []]
    assert [sweep(watch, first.id, second) for watch in watches] == [[], []]
    assert [one.candidate for one in Queue(workspace.ledger).waiting()] == [first.id, second]
    assert state(workspace, first.id) == state(workspace, second) == ("queued", "")
    assert {one.candidate for one in workspace.ledger.candidates()} == {first.id, second}


@pytest.mark.parametrize(
    ("tag", "complaint"),
    [
        ("graph_network", "no JSON object"),
        ("[1, 2]", "no JSON object"),
        ('{"family": "oracle"}', "family is 'oracle'"),
        ('{"family": "graph_network", "architecture": "gcn", "recipe": {"epochs": -1}}', "epochs"),
        ('{"family": "language_model", "checkpoint": "/gone"}', "/gone"),
        ('{"family": "scores", "path": "/gone.parquet"}', "/gone.parquet"),
        ('{"family": "pyfunc", "source": "models:/somebody/1"}', "trained_on"),
    ],
)
def test_a_spec_that_cannot_be_used_is_refused_with_the_reason_and_gets_a_chance_when_corrected(
    workspace, tag, complaint
):
    watch = Watch(workspace)
    candidate = plain(workspace, "bad", tag)
    [said] = sweep(watch)
    assert said.startswith("bad/1 is refused: ")
    assert sweep(watch) == sweep(Watch(workspace)) == []
    told, why = state(workspace, candidate)
    assert told == "refused"
    assert complaint in why
    workspace.models.set_tags(candidate, {SPEC_TAG: json.dumps(SPEC)})
    assert sweep(watch) == ["bad/1 is queued"]
    assert state(workspace, candidate) == ("queued", "")
    workspace.models.set_tags(candidate, {SPEC_TAG: tag})
    assert sweep(watch, candidate) == sweep(Watch(workspace)) == []


def test_who_was_tried_before_anybody_watched_does_not_enter_again(workspace):
    version = workspace.models.register_candidate(parse_spec({"name": "veteran"} | SPEC))
    workspace.models.set_tags(version.id, {FAILED_TAG: "in another life"})
    ledger = workspace.ledger
    ledger.record_data_version("data")
    ledger.record_candidate(version.id, version.digest, "graph_network")
    ledger.start_tournament("t-1", "data", {version.id: "newcomer"})
    ledger.finish_tournament("t-1")
    assert sweep(Watch(workspace)) == ["veteran/1 is tried"]
    assert Queue(ledger).waiting() == []
    assert state(workspace, version.id) == ("benched", "")
    assert FAILED_TAG not in workspace.models.tags(version.id)


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


@pytest.mark.parametrize(
    ("message", "end"),
    [
        ("Flow run encountered an exception: CandidateError: no candidate could be trained", "given_up"),
        ("Flow run encountered an exception: NotFoundError: no candidate enters", "given_up"),
        ("Flow run encountered an exception: StoreError: the disk is full", "outage"),
        ("Flow run encountered an exception: DataError: the file is missing", "outage"),
        ("Flow run encountered an exception: httpx.ConnectError: All connection attempts failed", "outage"),
        ("Flow run encountered an exception: KeyError: 'x'", "failed"),
        ("", "failed"),
    ],
)
def test_a_failed_run_is_the_candidates_fault_or_an_outage(message, end):
    assert _failure(message)[0] == end
    assert _failure(message)[1]
