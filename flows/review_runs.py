"""The flow runs in which reviews wait: opened through the deployment `review/review`, looked after, ended.

Everything goes through Prefect's API; without a configured one nothing is opened, and the command line decides.
"""

from __future__ import annotations

import datetime as dt
import uuid
from contextlib import suppress
from typing import Literal
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.logging import get_logger
from prefect.states import Cancelled, Completed, Scheduled

from esci_tournament.flows.announce import announce
from esci_tournament.flows.links import has_api, review_link, ui_link
from esci_tournament.flows.report_files import read_summary, reports_folder
from esci_tournament.registry.reviews import RETRIED, Case, champion_at, waiting
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.report.review_words import review_markdown, review_title
from esci_tournament.tasks.report.table import as_markdown

DEPLOYMENT = "review/review"
RETRIES = 3  # times that one flow run is started again before another takes its place

FORM_S = 30.0  # the form is stored right after the state that waits for it

Condition = Literal["live", "answering", "broken", "cancelled", "over", "lost"]


def review_required(settings: Settings) -> bool:
    """Return whether a person decides on promotions."""
    return settings.review == "required" or (settings.review == "auto" and has_api())


# What a reviewer is told


def describe(workspace: Workspace, case: Case, notes: tuple[str, ...] = (), deadline: dt.datetime | None = None) -> str:
    """Return a case as the Markdown that stands beside the form.

    Args:
        workspace: Settings and stores.
        case: What is decided on.
        notes: What it says first, such as why an answer was not recorded.
        deadline: When no answer counts as a refusal; default: the case's, or counted from now.

    Returns:
        The Markdown.

    Raises:
        NotFoundError: If the registry does not have the challenger, or neither it nor this home has the summary.
    """
    version = workspace.roll.ensemble(case.ensemble.version)
    summary = read_summary(workspace, case.tournament, version)
    champion = champion_at(workspace.ledger, case.ensemble.name, case.verdict.against)
    before = workspace.roll.ensemble(champion).members if champion is not None else ()
    when = (deadline or case.deadline(workspace.settings) or _from_now(workspace.settings)).astimezone(dt.UTC)
    until, manifest = f"on {when:%Y-%m-%d at %H:%M} UTC", case.ensemble.manifest_digest
    return review_markdown(summary, before, links(workspace, case), notes, until, manifest)


def links(workspace: Workspace, case: Case) -> dict[str, str]:
    """Return where a case is documented.

    Args:
        workspace: The home and the model registry.
        case: The case.

    Returns:
        Title -> path or address of the report, the challenger's version and run in MLflow, and the report in Prefect.

    Raises:
        NotFoundError: If the registry does not have the challenger.
    """
    version = workspace.roll.ensemble(case.ensemble.version)
    found = {"Full report": str(reports_folder(workspace, case.tournament) / "report.html")}
    found |= workspace.models.addresses(version)
    if address := ui_link(f"artifacts/key/{_key('report', case)}"):
        found["Report in Prefect"] = address
    return found


def message_links(workspace: Workspace, case: Case) -> dict[str, str]:
    """Return :func:`links` for a message: a report that no browser opens is named by the command that shows it."""
    return {"Full report": f"tournament report {case.tournament}"} | {
        title: address for title, address in links(workspace, case).items() if not address.startswith("/")
    }


def _from_now(settings: Settings) -> dt.datetime:
    return dt.datetime.now(dt.UTC) + dt.timedelta(hours=settings.review_deadline_h)


def note_of(case: Case, flow_run: str) -> str:
    """Return what a flow run of a case is to say first, such as why it is asked again; "" for nothing."""
    return next((one.payload["note"] for one in case.reviews if one.payload.get("flow_run") == flow_run), "")


# One round


def open_round(workspace: Workspace, case: Case, note: str = "", because: str = "") -> str:
    """Ask the reviewers about a case once more.

    With an API and our deployment on it, a flow run is made; else the case is left to the command line. A process that
    repeats this after a kill, or does it at the same time as another, gets the same flow run and the same row.

    Args:
        workspace: Settings and stores.
        case: A case without a decision.
        note: What the form says first, such as why it is asked again.
        because: Why, in a word for programs, such as `cancelled`.

    Returns:
        What was done, in words; "" when another process did it, or the case stays with the command line.
    """
    number = len(case.reviews) + 1
    flow_run = _make_run(case, number) if has_api() else None
    if flow_run is None and case.reviews:
        return ""  # it was left to the command line before
    token = uuid.uuid4().hex
    content = {"flow_run": flow_run, "link": review_link(flow_run), "note": note, "because": because, "token": token}
    review = workspace.ledger.record_review(case.id, number, content)
    if review.payload["token"] != token:
        return ""
    summary = read_summary(workspace, case.tournament, workspace.roll.ensemble(case.ensemble.version))
    if flow_run:
        _publish(workspace, case, flow_run, as_markdown(summary), note)
    where = review_link(flow_run) or f"tournament review show {case.id}"
    announce(
        "review",
        f"{case.ensemble.name}/{case.ensemble.version}",
        {
            "title": f"Review: {review_title(summary)}",
            "text": f"{note} Decide on its page, or with `tournament review approve|refuse {case.id}`.".strip(),
            "links": {"Review": where, **message_links(workspace, case)},
            "verdict": case.id,
            "tournament": case.tournament,
            "round": number,
        },
    )
    return f"verdict {case.id} waits for review: {where}"


def open_review(workspace: Workspace, tournament: str) -> str:
    """Ask the reviewers about the verdict of a tournament that has just ended.

    Args:
        workspace: Settings and stores.
        tournament: Id of the tournament.

    Returns:
        What was done, in words; "" when there was nothing to do, or when the server is down: a later sweep asks then.
    """
    for case in waiting(workspace.ledger, workspace.settings.ensemble_name):
        if case.tournament == tournament and not case.reviews:
            try:
                return open_round(workspace, case)
            except (PrefectException, httpx.HTTPError, RuntimeError) as error:
                get_logger("reviews").warning("verdict %s: the review is not open yet: %s", case.id, error)
    return ""


def remind(workspace: Workspace, case: Case, waited_h: float) -> None:
    """Remind the reviewers of a case that waits: by an event, and by an artifact on its flow run.

    Args:
        workspace: Settings and stores.
        case: A case that reviewers have been asked about.
        waited_h: Hours since they were first asked.
    """
    deadline = case.deadline(workspace.settings)
    until = f"{deadline:%Y-%m-%d at %H:%M} UTC"
    text = f"The review has waited for {waited_h:.0f} h; without an answer it counts as refused on {until}."
    where = review_link(case.flow_run) or f"tournament review show {case.id}"
    if case.flow_run and has_api():
        with get_client(sync_client=True) as client:
            _artifact(client, _key("reminder", case), f"{text}\n\n[Decide]({where})", case.flow_run, text)
    announce(
        "review",
        f"{case.ensemble.name}/{case.ensemble.version}",
        {
            "title": f"Reminder: version {case.ensemble.version} waits for review",
            "text": text,
            "links": {"Review": where, **message_links(workspace, case)},
            "verdict": case.id,
            "tournament": case.tournament,
        },
    )


def tell_again(workspace: Workspace, case: Case, flow_run: str, title: str, words: str) -> None:
    """Tell the reviewers that an answer decided nothing, and why; the review is asked again.

    Args:
        workspace: Settings and stores.
        case: The case, which still waits.
        flow_run: The run in which it is asked.
        title: What has happened.
        words: The complaint, or whose approval is still missing.
    """
    announce(
        "review",
        f"{case.ensemble.name}/{case.ensemble.version}",
        {
            "title": f"{title}: version {case.ensemble.version} still waits for review",
            "text": f"{words} The review is asked again.",
            "links": {"Review": review_link(flow_run), **message_links(workspace, case)},
            "verdict": case.id,
            "tournament": case.tournament,
        },
    )


def _make_run(case: Case, number: int) -> str | None:
    with get_client(sync_client=True) as client:
        try:
            deployment = client.read_deployment_by_name(DEPLOYMENT)
        except ObjectNotFound:  # no process serves reviews on this server
            return None
        run = client.create_flow_run_from_deployment(
            deployment.id,
            parameters={"verdict": case.id, "tournament": case.tournament},
            name=f"review {case.ensemble.name} v{case.ensemble.version}" + (f", round {number}" if number > 1 else ""),
            # The moment of the verdict tells two ledgers apart that share a server.
            idempotency_key=f"review {case.tournament} {case.verdict.against} {case.verdict.at.isoformat()} {number}",
        )
        return str(run.id)


def _publish(workspace: Workspace, case: Case, flow_run: str, report: str, note: str) -> None:
    with get_client(sync_client=True) as client:
        _artifact(client, _key("report", case), report, flow_run, "The whole report of the tournament")
        shown = describe(workspace, case, (note,) if note else ())
        _artifact(client, _key("review", case), shown, flow_run, "What the reviewer decides on")


def _artifact(client: SyncPrefectClient, key: str, markdown: str, flow_run: str, description: str) -> None:
    content = ArtifactCreate(
        key=key, type="markdown", data=markdown, flow_run_id=UUID(flow_run), description=description
    )
    client.create_artifact(content)


def _key(kind: str, case: Case) -> str:
    return f"{kind}-{case.tournament}-{case.id}".lower().replace("_", "-")


# What became of a flow run


def condition(flow_run: str, stuck_s: float) -> Condition:
    """Return how a flow run of a review is doing.

    Args:
        flow_run: Prefect's id of the run.
        stuck_s: Seconds after which a run that should be going on counts as broken.

    Returns:
        `live`: waits for an answer, or to be run; `answering`: goes on with an answer; `broken`: can be started again;
        `cancelled`; `over`: has completed; `lost`: is not on the server, or cannot be answered.
    """
    with get_client(sync_client=True) as client:
        run = _read(client, flow_run)
        if run is None or run.state is None:
            return "lost"
        state = run.state
        match state.type:
            case StateType.PAUSED:
                return "live" if _has_form(client, run, state) else "lost"
            case StateType.SCHEDULED:
                return "live"
            case StateType.CANCELLED | StateType.CANCELLING:
                return "cancelled"
            case StateType.COMPLETED:
                return "over"
            case StateType.FAILED | StateType.CRASHED:
                return "broken"
            case _:
                age = (dt.datetime.now(dt.UTC) - state.timestamp).total_seconds()
                return "broken" if age > stuck_s else "answering"


def start_again(workspace: Workspace, case: Case, flow_run: str) -> bool:
    """Start a broken flow run again, which keeps the answers it was given.

    Args:
        workspace: The home with the ledger, which counts the tries.
        case: The case that the run is about.
        flow_run: Prefect's id of the run.

    Returns:
        False when that was tried `RETRIES` times already.
    """
    tried = sum(
        event.payload["flow_run"] == flow_run
        for event in workspace.ledger.events(case.tournament, RETRIED)
        if event.subject == str(case.id)
    )
    if tried >= RETRIES:
        return False
    workspace.ledger.record_event(RETRIED, str(case.id), case.tournament, {"flow_run": flow_run})
    again: State[None] = Scheduled(name="AwaitingRetry", message="The review's process was lost; it goes on.")
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(flow_run), again, force=True)
    return True


def end_run(flow_run: str, words: str, said_no: bool = False) -> bool:
    """End a flow run that waits for an answer which was given elsewhere.

    A run that is just being answered is left alone: it finds out for itself that the verdict is decided.

    Args:
        flow_run: Prefect's id of the run.
        words: What its final state says.
        said_no: Whether it ends as cancelled, for a deadline that passed; else as completed.

    Returns:
        Whether the run has ended or is gone.
    """
    with get_client(sync_client=True) as client:
        run = _read(client, flow_run)
        if run is None or run.state is None or run.state.is_final():
            return True
        if run.state.type not in (StateType.PAUSED, StateType.SCHEDULED):
            return False
        ended: State[None] = Cancelled(message=words) if said_no else Completed(name="Decided", message=words)
        client.set_flow_run_state(run.id, ended, force=True)
        return True


def answered_gates(flow_run: str) -> int:
    """Return the number of the last gate of a flow run that was answered, 0 for none."""
    gates = "suspended-gate-"
    with get_client(sync_client=True) as client:
        inputs = client.filter_flow_run_input(UUID(flow_run), key_prefix=gates, limit=200, exclude_keys=set())
    given = [one.key for one in inputs if one.key.endswith("-response")]
    return max((int(key.split("-")[2]) for key in given), default=0)


def _read(client: SyncPrefectClient, flow_run: str) -> FlowRun | None:
    with suppress(ObjectNotFound):
        return client.read_flow_run(UUID(flow_run))
    return None


def _has_form(client: SyncPrefectClient, run: FlowRun, state: State[object]) -> bool:
    """Return whether a paused run can be answered: one that was killed before it stored its form cannot."""
    key = (state.state_details.run_input_keyset or {}).get("schema")
    if key is None:
        return False
    stored = client.filter_flow_run_input(run.id, key_prefix=key, limit=1, exclude_keys=set())
    return bool(stored) or (dt.datetime.now(dt.UTC) - state.timestamp).total_seconds() < FORM_S
