"""The queue: each candidate enters once, oldest first, with one tournament at a time on each device."""

from __future__ import annotations

import json

import pytest

from esci_tournament.registry.errors import UsageError
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.queue import Queue
from esci_tournament.registry.withdrawals import reinstate, withdraw, withdrawals

# What is above the ledger is the same on every database; the ledger itself is tested on both.
pytestmark = pytest.mark.databases("sqlite")

RACE = """
import json, os, sys
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.queue import Queue
url, racers = sys.argv[1], int(sys.argv[2])
Ledger.open(url).close()
children = []
for _ in range(racers):
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        with Ledger.open(url) as ledger:
            queue = Queue(ledger)
            won = [bool(queue.arrive(f"racer-{n}/1", "d", "queued", {"entered": f"{n:02d}"})) for n in range(20)]
            first = queue.dispatch("cpu", 3)
            os.write(writer, json.dumps([sum(won), list(first.candidates) if first else None]).encode())
        os._exit(0)
    os.close(writer)
    children.append((child, reader))
answers = [json.loads(os.read(reader, 4096)) for child, reader in children if os.waitpid(child, 0)]
print(json.dumps(answers))
"""


@pytest.fixture
def queue(ledger: Ledger) -> Queue:
    return Queue(ledger)


def arrive(queue: Queue, *names: str) -> None:
    for number, name in enumerate(names):
        assert queue.arrive(name, f"digest of {name}", "queued", {"entered": f"2026-01-0{number + 1}"})


@pytest.mark.databases("sqlite", "postgresql")
def test_of_many_racers_one_records_each_arrival_and_one_dispatches(ledger_url, run_script):
    answers = json.loads(run_script(RACE, ledger_url, 6).stdout)
    assert sum(won for won, _ in answers) == 20
    assert [chosen for _, chosen in answers if chosen] == [["racer-0/1", "racer-1/1", "racer-2/1"]]


def test_who_is_refused_gets_a_chance_with_another_content_and_enters_once(queue):
    assert queue.arrive("a/1", "one", "refused", {"complaint": "no"}) is not None
    assert queue.arrive("a/1", "one", "queued") is None
    assert queue.arrive("a/1", "two", "queued") is not None
    assert queue.arrive("a/1", "three", "queued") is None
    assert queue.arrive("a/1", "two", "refused", {"complaint": "no"}, again=True) is None
    assert [row.digest for row in queue.waiting()] == ["two"]
    assert [row.outcome for row in queue.arrivals(["a/1", "b/1"])] == ["refused", "queued"]


def test_the_oldest_goes_first_and_the_next_when_the_device_is_free(queue):
    queue.arrive("late/1", "d", "queued", {"entered": "2026-02-01"})
    queue.arrive("early/1", "d", "queued", {"entered": "2026-01-01"})
    queue.arrive("tried/1", "d", "tried", {"entered": "2025-01-01"})
    first = queue.dispatch("cpu", 1)
    assert first.candidates == ("early/1",)
    assert queue.dispatch("cpu", 1) is None
    queue.end(first.last, "completed")
    assert queue.open("cpu") is None
    second = queue.dispatch("cpu", 5)
    assert second.candidates == ("late/1",)
    assert queue.open("cpu") == second
    assert queue.dispatch("cuda:1", 1) is None


def test_devices_are_free_of_each_other_and_who_was_tried_by_hand_is_left_out(queue, ledger):
    arrive(queue, "a/1", "b/1", "c/1")
    ledger.record_data_version("data")
    ledger.record_candidate("b/1", "digest", "scores")
    ledger.start_tournament("by-hand", "data", {"b/1": "newcomer"})
    assert queue.tried(["a/1", "b/1"]) == set()
    ledger.finish_tournament("by-hand")
    assert queue.tried(["a/1", "b/1"]) == {"b/1"}
    assert queue.dispatch("cpu", 1).candidates == ("a/1",)
    assert queue.dispatch("cuda", 2).candidates == ("c/1",)
    assert queue.waiting() == []


def test_who_is_withdrawn_waits_for_nothing_and_who_is_reinstated_is_sent_once_more(queue, ledger):
    ledger.record_data_version("data")
    arrive(queue, "a/1", "b/1")
    withdraw(ledger, "a/1", "a mistake")
    assert withdraw(ledger, "a/1", "again") == (withdrawals(ledger)["a/1"], False)
    assert [one.candidate for one in queue.waiting()] == ["b/1"]
    assert (reinstate(ledger, "a/1"), reinstate(ledger, "a/1")) == (True, False)
    assert [one.candidate for one in queue.waiting()] == ["a/1", "b/1"]
    first = queue.dispatch("cpu", 9)
    assert (first.candidates, queue.waiting()) == (("a/1", "b/1"), [])
    for candidate in first.candidates:
        ledger.record_candidate(candidate, "digest", "scores")
    ledger.start_tournament("t-1", "data", dict.fromkeys(first.candidates, "newcomer"))
    withdraw(ledger, "a/1", "diverges", "t-1")
    ledger.finish_tournament("t-1")
    queue.end(first.last, "completed")
    assert queue.dispatch("cpu", 9) is None
    reinstate(ledger, "a/1")
    assert queue.tried(["a/1", "b/1"]) == {"b/1"}
    second = queue.dispatch("cpu", 9)
    assert second.candidates == ("a/1",)
    assert queue.waiting() == []
    queue.end(second.last, "given_up", "its data was gone")
    assert queue.dispatch("cpu", 9) is None, "it was put back once"
    reinstate(ledger, "a/1", failed=True)
    assert queue.dispatch("cpu", 9).candidates == ("a/1",)


def test_an_attempt_that_was_lost_is_made_again_under_another_key(queue):
    arrive(queue, "a/1")
    first = queue.dispatch("cpu", 1)
    queue.start(first.last, "run-1")
    queue.start(first.last, "run-1")
    assert queue.try_again(first).last.number == 1  # it lasts
    assert queue.end(first.last, "lost", "killed") is True
    assert queue.end(first.last, "completed") is False
    assert queue.dispatch("cpu", 1) is None
    second = queue.try_again(queue.open("cpu"))
    assert queue.try_again(first) == second
    assert (first.key, second.key) == (f"{first.id}-1", f"{first.id}-2")
    assert [(one.flow_run, one.end, one.reason) for one in second.attempts] == [
        ("run-1", "lost", "killed"),
        ("", "", ""),
    ]
    queue.end(second.last, "given_up", "three times")
    assert queue.open("cpu") is None
    assert queue.waiting() == []


def test_a_mark_changes_with_what_a_state_follows_from_alone(queue, ledger):
    before = queue.mark()
    ledger.record_data_version("d")
    assert queue.mark() == before
    arrive(queue, "a/1")
    assert queue.mark() != before


def test_words_that_mean_nothing_are_refused(queue):
    with pytest.raises(UsageError, match="entered"):
        queue.arrive("a/1", "d", "entered")
    arrive(queue, "a/1")
    with pytest.raises(UsageError, match="dead"):
        queue.end(queue.dispatch("cpu", 1).last, "dead")
