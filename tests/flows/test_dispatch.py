"""Queued candidates are sent into tournaments, and again when a run is lost, on a real Prefect server."""

from __future__ import annotations

import datetime as dt
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterIdempotencyKey
from prefect.client.schemas.objects import FlowRun
from prefect.states import Failed, Pending, Running

from esci_tournament.flows import turn as turns
from esci_tournament.flows.dispatch import STARTS, Dispatcher, _failure
from esci_tournament.flows.turn import device_lock
from esci_tournament.registry.queue import Dispatch, DispatchAttempt, Queue
from esci_tournament.registry.settings import read_settings
from esci_tournament.registry.workspace import Workspace
from tests.harness import until


@pytest.mark.parametrize(
    ("message", "end"),
    [
        ("Flow run encountered an exception: CandidateError: no candidate could be trained", "given_up"),
        ("Flow run encountered an exception: NotFoundError: no candidate enters", "given_up"),
        ("Flow run encountered an exception: StoppedError: the tournament was cancelled by ann: old", "given_up"),
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


def test_a_run_whose_process_is_being_started_has_more_time_than_one_that_has_begun(tmp_path: Path) -> None:
    dispatcher = Dispatcher(Workspace(read_settings(home=tmp_path, data="data", lost_after_s=0.2)))
    long_ago = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    begun, starts = (
        FlowRun(id=uuid.uuid4(), flow_id=uuid.uuid4(), state=state(timestamp=long_ago)) for state in (Running, Pending)
    )
    assert not any(dispatcher._is_dead(run) for run in (begun, starts))
    time.sleep(0.3)
    assert dispatcher._is_dead(begun)
    assert not dispatcher._is_dead(starts)
    time.sleep(STARTS * 0.2)
    assert dispatcher._is_dead(starts)
    dispatcher.workspace.ledger.close()


def test_a_run_that_waits_for_its_turn_is_not_taken_for_dead_and_a_dead_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refresh holds the lock of the home and none of a device: the run that waited for it was crashed each minute."""
    settings = read_settings(home=tmp_path / "home", data="data", lost_after_s=0.2)
    ours, theirs = Workspace(settings), Workspace(settings)
    long_ago = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    run = FlowRun(id=uuid.uuid4(), flow_id=uuid.uuid4(), state=Running(timestamp=long_ago))
    monkeypatch.setattr(turns.runtime, "deployment", SimpleNamespace(id="deployed"))
    monkeypatch.setattr(turns.runtime, "flow_run", SimpleNamespace(id=run.id))
    has_turn, ends = threading.Event(), threading.Event()

    def work() -> None:
        with turns.turn(theirs):
            has_turn.set()
            ends.wait(30)

    dispatcher, waits = Dispatcher(ours), threading.Thread(target=work)
    settings.home.mkdir(exist_ok=True)
    with FileLock(settings.home / "tournament.lock"):
        waits.start()
        until(lambda: ours.ledger.is_worked_on(turns.run_sign(run.id)), 30, "the run shows that it lives")
        assert not ours.ledger.is_locked(device_lock(settings))
        for _ in range(3):
            assert not dispatcher._is_dead(run)
            time.sleep(0.15)
        assert not has_turn.is_set()
    assert has_turn.wait(30)
    ends.set()
    waits.join(30)
    assert not dispatcher._is_dead(run)  # it has just been free
    time.sleep(0.3)
    assert dispatcher._is_dead(run)
    for one in (ours, theirs):
        one.ledger.close()


def test_who_is_given_up_is_said_to_have_failed_unless_its_tournament_has_said_so(
    tmp_path: Path, announced: list[dict[str, Any]]
) -> None:
    workspace = Workspace(read_settings(home=tmp_path))
    workspace.ledger.record_data_version("data")
    workspace.ledger.start_tournament("t-1", "data")
    workspace.ledger.record_event("candidate_failed", "told/1", "t-1", {"reason": "its scores are NaN"})
    last = DispatchAttempt(1, 1, dt.datetime.now(dt.UTC), "0e2c3a56", "given_up")
    dispatch = Dispatch("d-1", "auto", ("told/1", "untold/1"), (last,))
    Dispatcher(workspace)._tell(dispatch, "CandidateError: no candidate could be trained: its scores are NaN")
    [event] = announced
    assert event["payload"]["title"] == "Candidate untold/1 failed, and is not tried again"
    assert event["payload"]["outcome"] == "failed"
    assert event["payload"]["links"]["Flow run"].endswith("/runs/flow-run/0e2c3a56")
    workspace.ledger.close()


@pytest.fixture
def dispatcher(tmp_path: Path, connected: dict[str, str]) -> Iterator[Dispatcher]:
    """A dispatcher with one candidate in its queue, whose runs nobody plays."""
    workspace = Workspace(read_settings(home=tmp_path, data="data", lost_after_s=0.5))
    with get_client(sync_client=True) as client:
        client.create_deployment(client.create_flow_from_name("tournament"), name="tournament")
    Queue(workspace.ledger).arrive(f"lost-{uuid.uuid4().hex[:8]}/1", "d", "queued")
    yield Dispatcher(workspace)
    workspace.ledger.close()


def last_run(dispatcher: Dispatcher) -> tuple[Any, FlowRun]:
    """Return the open dispatch and the run of its last attempt."""
    dispatch = dispatcher.queue.open("auto")
    with get_client(sync_client=True) as client:
        return dispatch, client.read_flow_run(uuid.UUID(dispatch.last.flow_run))


@pytest.mark.slow
def test_a_run_that_no_process_holds_is_declared_crashed_and_attempted_again(dispatcher):
    dispatcher.advance()
    _, run = last_run(dispatcher)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, Running(), force=True)
    ledger = dispatcher.workspace.ledger
    with ledger.keep(device_lock(dispatcher.workspace.settings), 0.0):
        for _ in range(3):
            dispatcher.advance()
            time.sleep(0.4)
        assert last_run(dispatcher)[0].last.number == 1
    until(lambda: dispatcher.advance() is None or last_run(dispatcher)[0].last.number == 2, 20, "attempted again")
    with get_client(sync_client=True) as client:
        assert client.read_flow_run(run.id).state.is_crashed()
    dispatch, second = last_run(dispatcher)
    assert dispatch.attempts[0].end == "lost"
    assert (second.idempotency_key, second.parameters["versions"]) == (f"{dispatch.id}-2", list(dispatch.candidates))


@pytest.mark.slow
def test_a_run_that_was_asked_for_before_a_crash_is_not_asked_for_twice(dispatcher, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(dispatcher.queue, "start", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            dispatcher.advance()
    assert dispatcher.queue.open("auto").last.flow_run == ""
    dispatcher.advance()
    dispatch, run = last_run(dispatcher)
    with get_client(sync_client=True) as client:
        key = FlowRunFilter(idempotency_key=FlowRunFilterIdempotencyKey(any_=[f"{dispatch.id}-1"]))
        assert [one.id for one in client.read_flow_runs(flow_run_filter=key)] == [run.id]


@pytest.mark.slow
def test_a_tournament_that_keeps_failing_is_given_up_and_the_queue_goes_on(dispatcher):
    queue, mine = dispatcher.queue, []
    dispatcher.workspace.settings.__dict__["retry_s"] = 0.0
    queue.arrive(f"next-{uuid.uuid4().hex[:8]}/1", "d", "queued")
    for attempt in (1, 2, 3):
        dispatcher.advance()
        dispatch, run = last_run(dispatcher)
        mine.append((dispatch.last.number, dispatch.candidates))
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(
                run.id, Failed(message=f"Flow run encountered an exception: KeyError: {attempt}"), force=True
            )
    dispatcher.advance()
    assert [number for number, _ in mine] == [1, 2, 3]
    given_up = next(one for one in queue.dispatches() if one.candidates == mine[0][1])
    assert (given_up.last.end, given_up.last.reason) == (
        "given_up",
        "its tournament failed 3 times, the last time: KeyError: 3",
    )
    assert queue.open("auto").candidates != mine[0][1]
