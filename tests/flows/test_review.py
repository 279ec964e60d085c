"""Reviews as flow runs on a real Prefect server, answered like in its UI: through the API's resume."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Cancelled, Crashed

from esci_tournament.flows.decision import answer
from esci_tournament.flows.review import end_waiting_runs, reconcile_reviews
from esci_tournament.flows.review_runs import note_of
from esci_tournament.registry.errors import BusyError
from esci_tournament.registry.reviewers import Answer
from esci_tournament.registry.reviews import Case

pytestmark = pytest.mark.slow

Served = tuple[Any, Any]


@pytest.fixture
def opened(served: Served, request: pytest.FixtureRequest) -> Callable[[], Case]:
    """Return a function that holds a tournament and lays its verdict before the reviewers."""
    world, _ = served
    numbers = iter(range(10))

    def open_one() -> Case:
        name = f"t-{request.node.name[5:25]}-{next(numbers)}".replace("_", "-")
        standing = world.champion()
        case = world.challenge(name, ["weak"] if standing is None else ["weak", "good"])
        said = reconcile_reviews(world.workspace)
        assert any(f"verdict {case.id} waits for review" in words for words in said), said
        return world.case(case.id)

    return open_one


def run_of(flow_run: str) -> Any:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(UUID(flow_run))


def until(flow_run: str, *names: str, gate: int | None = None, seconds: float = 240) -> Any:
    """Wait until a run is in one of these states, at a gate if one is named, and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        run = run_of(flow_run)
        key = run.state.state_details.pause_key
        if run.state.name in names and (gate is None or key == f"gate-{gate}"):
            return run
        time.sleep(0.3)
    raise AssertionError(f"the run is {run.state.name} ({run.state.message}), gate {key}; waited for {names}, {gate}")


def description(flow_run: str, gate: int) -> str:
    end = time.monotonic() + 60
    with get_client(sync_client=True) as client:
        while True:  # a moment after the run is suspended
            try:
                return client.read_flow_run_input(UUID(flow_run), f"suspended-gate-{gate}-description")
            except PrefectHTTPStatusError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.3)


def messages(words: str) -> list[dict[str, Any]]:
    """Return the payloads of the events about reviews whose title has these words, once the server shows one."""
    end = time.monotonic() + 30
    while True:
        with get_client(sync_client=True) as client:
            wanted = {"filter": {"event": {"name": ["tournament.review"]}}, "limit": 50}
            found = [one["payload"] for one in client.request("POST", "/events/filter", json=wanted).json()["events"]]
        if (fitting := [one for one in found if words in one["title"]]) or time.monotonic() > end:
            return fitting
        time.sleep(0.3)


def resume(flow_run: str, decision: str, reviewer: str, reason: str) -> Any:
    given = {"decision": decision, "reviewer": reviewer, "reason": reason}
    with get_client(sync_client=True) as client:
        return client.resume_flow_run(UUID(flow_run), run_input=given)


def set_state(flow_run: str, state: Any) -> None:
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(flow_run), state, force=True)


def test_a_wrong_answer_is_asked_again_and_a_right_one_is_the_decision(served: Served, opened: Any) -> None:
    world, _ = served
    case = opened()
    until(case.flow_run, "Suspended", gate=1)
    asked = description(case.flow_run, 1)
    assert "Members in: weak v1" in asked
    assert "Without an answer the challenger is not promoted: the review closes on" in asked
    resume(case.flow_run, "approve", "ana", " ")
    until(case.flow_run, "Suspended", gate=2)
    assert description(case.flow_run, 2).lstrip('"').startswith("> **The reason is missing")
    told = messages(f"version {case.ensemble.version} still waits")
    assert len(told) == 1
    assert told[0]["title"].startswith("An answer was not recorded")
    assert "The reason is missing" in told[0]["text"]
    assert told[0]["links"]["Review"].endswith(f"/tournament/review/{case.flow_run}")
    assert world.case(case.id).state == "waits"
    resume(case.flow_run, "refuse", "ana", "not now")
    # The process that was to go on is lost: another one finds the answer that was given.
    set_state(case.flow_run, Crashed(message="lost"))
    assert reconcile_reviews(world.workspace) == [f"verdict {case.id}: its review was started again"]
    ended = until(case.flow_run, "Refused")
    assert "was refused by ana: not now" in ended.state.message
    assert world.case(case.id).decision.payload["via"] == "prefect"
    with pytest.raises(BusyError, match="decided already: refuse by ana"):
        answer(world.workspace, world.case(case.id), Answer("approve", "bob", "yes", "command line", "late"))


def test_of_an_answer_in_the_ui_and_one_on_the_command_line_the_first_stands(served: Served, opened: Any) -> None:
    world, _ = served
    before, first, second = world.champion(), opened(), opened()
    for case in (first, second):
        until(case.flow_run, "Suspended")
    # Answered in the UI, but before the worker has started the run the command line was faster.
    resume(first.flow_run, "approve", "ana", "better")
    answer(world.workspace, first, Answer("refuse", "bob", "no", "command line", "bob"))
    told = until(first.flow_run, "Refused", "Approved")
    assert "decided already: refuse by bob" in told.state.message
    assert world.case(first.id).decision.reviewer == "bob"
    # Decided on the command line: the run that waits is ended, and cannot be answered any more.
    answer(world.workspace, second, Answer("refuse", "bob", "no", "command line", "bob"))
    assert end_waiting_runs(world.workspace, world.case(second.id))
    assert run_of(second.flow_run).state.name == "Decided"
    assert resume(second.flow_run, "approve", "ana", "better").status.value == "ABORT"
    reconcile_reviews(world.workspace)
    assert reconcile_reviews(world.workspace) == []
    assert world.champion() == before


def test_a_cancelled_review_is_asked_again_once_and_counts_as_refused_then(served: Served, opened: Any) -> None:
    world, _ = served
    case = opened()
    set_state(case.flow_run, Cancelled())
    assert "waits for review" in reconcile_reviews(world.workspace)[0]
    again = world.case(case.id)
    assert again.flow_run != case.flow_run
    assert run_of(again.flow_run).parameters == {"verdict": case.id, "tournament": case.tournament}, "ids alone"
    assert "cancelled in Prefect" in note_of(again, again.flow_run)
    assert again.opened_at == case.opened_at, "the deadline does not move"
    set_state(again.flow_run, Cancelled())
    assert "cancelled again" in reconcile_reviews(world.workspace)[0]
    assert world.case(case.id).decision.outcome == "refuse"


def test_a_lost_run_is_made_again_by_one_of_many_who_look(served: Served, opened: Any) -> None:
    world, _ = served
    case = opened()
    with get_client(sync_client=True) as client:
        client.delete_flow_run(UUID(case.flow_run))
    said = [reconcile_reviews(world.workspace) for _ in range(3)]
    assert ["waits for review" in str(words) for words in said] == [True, False, False]
    again = world.case(case.id)
    assert [one.round for one in again.reviews] == [1, 2]
    assert "not on the server any more" in again.reviews[1].payload["note"]
    answer(world.workspace, again, Answer("refuse", "bob", "no", "command line", "bob"))


def test_at_the_deadline_the_run_is_cancelled_and_the_verdict_expires(served: Served, opened: Any) -> None:
    world, _ = served
    case = opened()
    until(case.flow_run, "Suspended")
    late = dict(world.settings)
    try:
        world.settings["review_deadline_h"] = 1e-9
        said = reconcile_reviews(world.workspace)
    finally:
        world.settings = late
    assert "counts as a refusal" in said[0]
    assert run_of(case.flow_run).state.name == "Cancelled"
    assert "expired by nobody" in run_of(case.flow_run).state.message
