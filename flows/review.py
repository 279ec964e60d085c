"""The review: a small flow run that waits in Prefect's UI for a reviewer's answer, and what looks after such runs.

A run that waits holds no process. When it is answered, the flow begins again from its top, so only reading stands
before its gate. Prefect runs none of our code when a run is cancelled or lost: `reconcile_reviews` finds out.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any, Literal

import httpx
from prefect import flow, runtime
from prefect.exceptions import PrefectException
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.logging import get_logger, get_run_logger
from prefect.states import Completed, State
from pydantic import ConfigDict, Field

from esci_tournament.flows import review_runs
from esci_tournament.flows.decision import NOBODY, answer, record, settle, what_stands
from esci_tournament.flows.governed import workspace_of_run
from esci_tournament.flows.links import has_api
from esci_tournament.registry import promotion
from esci_tournament.registry.errors import BusyError, NotFoundError, TournamentError, UsageError
from esci_tournament.registry.policies import in_force
from esci_tournament.registry.records import Decision
from esci_tournament.registry.reviewers import Answer
from esci_tournament.registry.reviews import REMINDED, Case, cases, find_case, unsettled, waiting
from esci_tournament.registry.workspace import Workspace

LEAST_WAIT_S = 60  # a gate that opens right before the deadline can still be answered
RUN_ENDED = "review_run_ended"  # kind of event; subject: the flow run
NAMES = {"approve": "Approved", "refuse": "Refused", "expired": "Expired"}


def _as_asked(schema: dict[str, Any]) -> None:
    """Mark all that an answer needs as required, so that Prefect's form calls none of it optional."""
    schema["required"] = list(schema["properties"])
    for field in schema["properties"].values():
        field.pop("default", None)


def _without_code(schema: dict[str, Any]) -> None:
    schema["properties"].pop("code", None)
    _as_asked(schema)


class Form(RunInput):
    """What a reviewer fills in.

    Fields have defaults in Python alone: an answer without one is read, and asked again with the complaint.
    """

    model_config = ConfigDict(extra="forbid", json_schema_extra=_without_code)

    decision: Literal["approve", "refuse"] = Field(
        title="Decision", description="approve: the challenger becomes champion; refuse: the champion stays"
    )
    reviewer: str = Field("", title="Reviewer", description="Your name, as the record will show it")
    reason: str = Field("", title="Reason", description="Why; it is kept in the champion's history")
    code: str = Field("", title="Code", description="The six digits of your authenticator app")


class ProvenForm(Form):
    """The form where the policy names reviewers: a code proves who answers."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_as_asked)


@flow(name="review")
def review(verdict: int, tournament: str = "") -> State[Any] | None:
    """Ask a reviewer whether a challenger becomes champion, and do what the answer says.

    Args:
        verdict: Number of the verdict in the ledger.
        tournament: Id of the tournament that it must belong to: on a worker with another ledger the number names
            another verdict.

    Returns:
        A completed state named after the decision, with what came of it as its message.

    Raises:
        NotFoundError: If the ledger has no such verdict, or it is of another tournament.
        PolicyError: If a setting of the worker asks for less than the policy in the ledger does.
    """
    workspace = workspace_of_run()
    case = find_case(workspace.ledger, workspace.settings.ensemble_name, verdict)
    if tournament and case.tournament != tournament:
        raise NotFoundError(
            f"verdict {verdict} is of tournament {case.tournament} in the ledger of this worker, not of {tournament}: "
            f"let the worker use the same ledger (it has {workspace.settings.home})"
        )
    flow_run = str(runtime.flow_run.id)
    number, wrong = max(1, review_runs.answered_gates(flow_run)), ""
    while True:
        if case.decision is not None and not case.decision.payload.get("mark", "").startswith(flow_run):
            return _ended(case.decision, what_stands(case.decision))
        deadline = case.deadline(workspace.settings) or _in_hours(workspace.settings.review_deadline_h)
        notes = tuple(words for words in (wrong, review_runs.note_of(case, flow_run)) if words)
        asked = ProvenForm if in_force(workspace.ledger, workspace.settings).reviewers else Form
        form = asked.with_initial_data(description=review_runs.describe(workspace, case, notes, deadline))
        wait_s = (deadline - dt.datetime.now(dt.UTC)).total_seconds()
        given = suspend_flow_run(wait_for_input=form, key=f"gate-{number}", timeout=max(LEAST_WAIT_S, round(wait_s)))
        case = find_case(workspace.ledger, workspace.settings.ensemble_name, verdict)
        mark = f"{flow_run} gate-{number}"
        said = Answer(given.decision, given.reviewer, given.reason, "prefect", mark, given.code)
        try:
            wrong = answer(workspace, case, said)
            title = "One more approval is needed"
        except UsageError as error:
            wrong, title = str(error), "An answer was not recorded"
            get_run_logger().warning("this answer was not recorded, please resume and answer again: %s", wrong)
        except BusyError as error:
            wrong, title = str(error), "An answer was not recorded"
        case = find_case(workspace.ledger, workspace.settings.ensemble_name, verdict)
        if case.decision is not None:
            return _ended(case.decision, wrong)
        review_runs.tell_again(workspace, case, flow_run, title, wrong)
        number += 1


def _ended(decision: Decision, words: str) -> State[Any]:
    return Completed(name=NAMES[decision.outcome], message=words)


def _in_hours(hours: float) -> dt.datetime:
    return dt.datetime.now(dt.UTC) + dt.timedelta(hours=hours)


# Looking after reviews


def reconcile_reviews(workspace: Workspace) -> list[str]:
    """Do for all reviews what they need now.

    Promotions and decisions that a crash interrupted are finished; reviewers are asked about verdicts that wait, again
    when the flow run was cancelled or lost; reminders are sent; at the deadline, no answer counts as a refusal; flow
    runs whose verdict was decided elsewhere are ended. Any number of processes may do it at once, at any time.
    Without a Prefect API reviews are left to the command line.

    Args:
        workspace: Settings and stores.

    Returns:
        What was done and what failed, a sentence each; [] when all was in order.
    """
    done: list[str] = []
    ledger, ensemble = workspace.ledger, workspace.settings.ensemble_name
    done += [f"promotion {one.sequence} was finished" for one in promotion.reconcile(ledger, workspace.models)]
    for case in unsettled(ledger, ensemble):
        _guarded(done, case, lambda one: [settle(workspace, one)])
    for case in waiting(ledger, ensemble):
        _guarded(done, case, lambda one: look_after(workspace, one))
    ended = {event.subject for event in ledger.events(kind=RUN_ENDED)}
    for case in cases(ledger, ensemble):
        if case.decision is not None and has_api():
            _guarded(done, case, lambda one: _end_runs(workspace, one, ended))
    return [words for words in done if words]


def look_after(workspace: Workspace, case: Case) -> list[str]:
    """Do for one case that waits what it needs now.

    Args:
        workspace: Settings and stores.
        case: A case without a decision.

    Returns:
        What was done, a sentence each; one that is "" stands for nothing.
    """
    settings, now = workspace.settings, dt.datetime.now(dt.UTC)
    deadline = case.deadline(settings)
    if deadline is None:
        return [review_runs.open_round(workspace, case)]
    if now >= deadline:
        words = f"no answer within {settings.review_deadline_h:g} h, which counts as a refusal"
        return [_close(workspace, case, "expired", words, "silence")]
    said = []
    if has_api():
        said.append(_tend_run(workspace, case))
    reminded = [one.at for one in workspace.ledger.events(case.tournament, REMINDED) if one.subject == str(case.id)]
    last = max([*reminded, *(one.at for one in case.reviews)])
    if now - last >= dt.timedelta(hours=settings.review_reminder_h):
        workspace.ledger.record_event(REMINDED, str(case.id), case.tournament)
        review_runs.remind(workspace, case, (now - case.reviews[0].at).total_seconds() / 3600)
        said.append(f"verdict {case.id}: reviewers were reminded")
    return said


def _tend_run(workspace: Workspace, case: Case) -> str:
    if case.flow_run is None:  # it was left to the command line when there was no server
        return review_runs.open_round(workspace, case)
    found = review_runs.condition(case.flow_run, workspace.settings.review_stuck_s)
    if found in ("live", "answering"):
        return ""
    if found == "broken" and review_runs.start_again(workspace, case, case.flow_run):
        return f"verdict {case.id}: its review was started again"
    if found == "cancelled":
        if any(one.payload.get("because") == "cancelled" for one in case.reviews):
            words = "the review was cancelled in Prefect, asked again, and cancelled again"
            return _close(workspace, case, "refuse", words, "cancelled")
        note = "The review was cancelled in Prefect, which is no answer: refuse it if that is meant. "
        note += "Cancelled once more, it counts as refused."
        return review_runs.open_round(workspace, case, note, "cancelled")
    if len(case.reviews) >= workspace.settings.review_rounds:
        return ""  # the command line can still decide, and the deadline still holds
    words = {"lost": "is not on the server any more", "over": "ended without a decision", "broken": "failed"}[found]
    return review_runs.open_round(workspace, case, f"The flow run of this review {words}; it is asked again.", found)


def _close(workspace: Workspace, case: Case, outcome: str, reason: str, via: str) -> str:
    """Record a refusal that no reviewer gave, unless one answered at the same moment."""
    decision = record(workspace, case, outcome, NOBODY, reason, via, via)
    return settle(workspace, case) if decision.payload.get("mark") == via else ""


def _end_runs(workspace: Workspace, case: Case, ended: set[str]) -> list[str]:
    """End the flow runs that still wait for a decision which is made."""
    said: list[str] = []
    if case.decision is None:
        return said
    for one in case.reviews:
        flow_run = one.payload.get("flow_run")
        if not flow_run or flow_run in ended:
            continue
        words = what_stands(case.decision)
        if review_runs.end_run(flow_run, words, said_no=case.decision.outcome == "expired"):
            workspace.ledger.record_event(RUN_ENDED, flow_run, case.tournament)
            said.append(f"verdict {case.id}: the flow run of its review is ended")
    return said


def end_waiting_runs(workspace: Workspace, case: Case) -> list[str]:
    """End the flow runs of a case that was just decided elsewhere.

    Those that cannot be ended now, as when the server is down, are ended by the next :func:`reconcile_reviews`.

    Args:
        workspace: The home with the ledger.
        case: A case with a decision.

    Returns:
        What was done and what failed, a sentence each.
    """
    ended = {event.subject for event in workspace.ledger.events(case.tournament, RUN_ENDED)}
    done: list[str] = []
    if has_api():
        _guarded(done, case, lambda one: _end_runs(workspace, one, ended))
    return done


def _guarded(done: list[str], case: Case, work: Callable[[Case], list[str]]) -> None:
    """Do the work of one case; what fails is reported, and the other cases are still worked on."""
    try:
        done.extend(work(case))
    except (TournamentError, PrefectException, httpx.HTTPError, RuntimeError, OSError) as error:
        get_logger("reviews").warning("verdict %s: %s", case.id, error)
        done.append(f"verdict {case.id}: {error}")
