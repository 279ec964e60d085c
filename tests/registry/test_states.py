"""A candidate's state is derived from the ledger's rows, at each step from registration to member."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from contextlib import ExitStack

import pytest

from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.queue import Queue
from esci_tournament.registry.states import INTERRUPTED, CandidateState, at_work, states, tags_of
from esci_tournament.registry.withdrawals import reinstate, withdraw

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
    queue, seen, process = Queue(ledger), [], ExitStack()

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
    process.enter_context(ledger.working_on("t-1"))
    look()
    verdict = ledger.record_verdict("t-1", "promote")
    look()
    ledger.record_ensemble("t-1", ENSEMBLE, 1, {"members": ["a/1"]})
    ledger.finish_tournament("t-1")
    queue.end(dispatch.last, "completed")
    process.close()
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
        *("registered", "queued", "queued", "queued", "training", "judged", "in review"),
        *("benched", "member", "member", "benched"),
    ]  # approved, and for a moment neither waiting nor champion yet
    assert states(ledger, ENSEMBLE)["a/1"].flow_run == "run"


def test_who_fails_has_a_reason_and_loses_it_by_not_failing_again(ledger):
    enter(ledger, "t-1", "a/1", "b/1")
    ledger.record_event("candidate_failed", "a/1", "t-1", {"reason": "NaN"})
    ledger.finish_tournament("t-1")
    assert of(ledger, "a/1") == ("failed", "NaN")
    enter(ledger, "t-2", "a/1")
    assert of(ledger, "a/1") == ("interrupted", INTERRUPTED)
    with ledger.working_on("t-2"):
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


def test_who_was_withdrawn_stays_so_until_it_is_put_back_whatever_came_of_it_before(ledger):
    queue = Queue(ledger)
    queue.arrive("a/1", "d", "queued")
    withdraw(ledger, "a/1", "a mistake")
    assert of(ledger, "a/1") == ("withdrawn", f"withdrawn by {ledger.who}: a mistake")
    reinstate(ledger, "a/1")
    assert of(ledger, "a/1") == ("queued", "")
    enter(ledger, "t-1", "a/1", "b/1")
    for candidate in ("a/1", "b/1"):
        withdraw(ledger, candidate, "diverges", "t-1")
        ledger.record_event("candidate_failed", candidate, "t-1", {"reason": "cancelled"})
    ledger.finish_tournament("t-1")
    assert of(ledger, "b/1") == ("withdrawn", f"cancelled by {ledger.who}: diverges")
    reinstate(ledger, "a/1")
    reinstate(ledger, "b/1")
    assert (of(ledger, "a/1")[0], of(ledger, "b/1")[0]) == ("queued", "registered"), "no watcher knows b/1"
    enter(ledger, "t-2", "a/1", "b/1")
    ledger.finish_tournament("t-2")
    assert (of(ledger, "a/1")[0], of(ledger, "b/1")[0]) == ("benched", "benched")


def test_training_is_said_while_its_process_lives_and_not_a_moment_longer(ledger, tmp_path):
    enter(ledger, "t-1", "a/1")
    holder = """
        import sys, time
        from esci_tournament.registry.ledger import Ledger
        with Ledger.open(sys.argv[1]) as ledger, ledger.working_on("t-1"):
            print("works", flush=True)
            time.sleep(600)
    """
    address = f"sqlite:///{tmp_path / 'ledger.db'}"
    command = [sys.executable, "-c", textwrap.dedent(holder), address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "works\n"
        assert (of(ledger, "a/1")[0], at_work(ledger)) == ("training", {"t-1"})
        process.kill()
    assert (of(ledger, "a/1"), at_work(ledger)) == (("interrupted", INTERRUPTED), frozenset())


def test_tags_that_do_not_apply_are_removed():
    assert tags_of(CandidateState("refused", reason="no"), "") == {
        "tournament.state": "refused", "tournament.refused": "no", "tournament.failed": None,
        "tournament.withdrawn": None, "tournament.flow_run": None,
    }  # fmt: skip
    failed = tags_of(CandidateState("failed", reason="x" * 5000), "http://ui")
    assert (len(failed["tournament.failed"]), failed["tournament.flow_run"]) == (4000, "http://ui")
