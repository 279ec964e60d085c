"""A candidate's state is derived from the ledger's rows, at each step from registration to member."""

from __future__ import annotations

import pytest

from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.queue import Queue
from esci_tournament.registry.states import CandidateState, states, tags_of

ENSEMBLE = "esci-ensemble"


@pytest.fixture
def ledger(tmp_path):
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        opened.record_data_version("data")
        yield opened


def of(ledger: Ledger, candidate: str) -> tuple[str, str]:
    found = states(ledger, ENSEMBLE).get(candidate, CandidateState())
    return found.state, found.reason


def enter(ledger: Ledger, tournament: str, *candidates: str) -> None:
    for candidate in candidates:
        ledger.record_candidate(candidate, "digest", "scores")
    ledger.start_tournament(tournament, "data", dict.fromkeys(candidates, "newcomer"))


def test_the_life_of_a_candidate_that_becomes_a_member_and_is_benched(ledger):
    queue, seen = Queue(ledger), []

    def look() -> None:
        seen.append(of(ledger, "a/1")[0])

    look()
    queue.arrive("a/1", "d", "queued")
    look()
    dispatch = queue.dispatch("cpu", 1)
    look()
    queue.start(dispatch.last, "run")
    look()
    enter(ledger, "t-1", "a/1", "b/1")
    look()
    verdict = ledger.record_verdict("t-1", "promote")
    look()
    ledger.record_ensemble("t-1", ENSEMBLE, 1, {"members": ["a/1"]})
    ledger.finish_tournament("t-1")
    queue.end(dispatch.last, "completed")
    look()
    assert of(ledger, "b/1")[0] == "benched"
    decision = ledger.record_decision(verdict.id, "approve", "somebody", "better")
    look()
    ledger.record_promotion(ENSEMBLE, "promote", 1, 0, "better", decision.id)
    look()
    enter(ledger, "t-2", "a/1", "c/1")
    look()
    second = ledger.record_decision(ledger.record_verdict("t-2", "promote", against=1).id, "approve", "x", "y")
    ledger.record_ensemble("t-2", ENSEMBLE, 2, {"members": ["c/1"]})
    ledger.finish_tournament("t-2")
    ledger.record_promotion(ENSEMBLE, "promote", 2, 1, "y", second.id)
    look()
    assert seen == [
        *("registered", "queued", "queued", "training", "training", "judged", "in review"),
        *("benched", "member", "member", "benched"),
    ]  # approved, and for a moment neither waiting nor champion yet
    assert states(ledger, ENSEMBLE)["a/1"].flow_run == "run"


def test_who_fails_has_a_reason_and_loses_it_by_not_failing_again(ledger):
    enter(ledger, "t-1", "a/1", "b/1")
    ledger.record_event("candidate_failed", "a/1", "t-1", {"reason": "NaN"})
    ledger.finish_tournament("t-1")
    assert of(ledger, "a/1") == ("failed", "NaN")
    enter(ledger, "t-2", "a/1")
    assert of(ledger, "a/1") == ("training", "")
    ledger.finish_tournament("t-2")
    assert of(ledger, "a/1") == ("benched", "")


def test_a_tournament_that_stopped_and_one_that_was_given_up_are_told_apart_from_one_that_goes_on(ledger):
    enter(ledger, "t-1", "a/1")
    ledger.fail_tournament("t-1", "the disk is full")
    assert of(ledger, "a/1") == ("failed", "the disk is full")
    queue = Queue(ledger)
    queue.arrive("b/1", "d", "queued")
    dispatch = queue.dispatch("cpu", 1)
    queue.start(dispatch.last, "run")
    queue.end(dispatch.last, "outage", "no disk")
    assert of(ledger, "b/1")[0] == "queued"
    dispatch = queue.try_again(dispatch)
    queue.end(dispatch.last, "given_up", "three times")
    assert of(ledger, "b/1") == ("failed", "three times")


def test_who_was_refused_says_why_until_it_is_corrected(ledger):
    queue = Queue(ledger)
    queue.arrive("a/1", "one", "refused", {"complaint": "no family"})
    assert of(ledger, "a/1") == ("refused", "no family")
    queue.arrive("a/1", "two", "queued")
    assert of(ledger, "a/1") == ("queued", "")


def test_tags_that_do_not_apply_are_removed():
    assert tags_of(CandidateState("refused", reason="no"), "") == {
        "tournament.state": "refused", "tournament.refused": "no", "tournament.failed": None,
        "tournament.flow_run": None,
    }  # fmt: skip
    failed = tags_of(CandidateState("failed", reason="x" * 5000), "http://ui")
    assert (len(failed["tournament.failed"]), failed["tournament.flow_run"]) == (4000, "http://ui")
