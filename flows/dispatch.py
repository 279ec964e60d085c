"""Queued candidates are dispatched into tournaments: one at a time on a device, oldest first, again when a run is lost.

What is decided is recorded before Prefect is asked, and Prefect is asked under a key that follows from the record: a
process that was killed in between, or that does the same at the same time, gets the same flow run.
"""

from __future__ import annotations

import datetime as dt
import re
import time
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_logger
from prefect.states import Crashed

from esci_tournament.flows.announce import announce
from esci_tournament.flows.links import run_link
from esci_tournament.flows.turn import device_lock, run_sign
from esci_tournament.registry.queue import AGAIN, Dispatch, Queue
from esci_tournament.registry.spelling import counted
from esci_tournament.registry.workspace import Workspace

DEPLOYMENT = "tournament/tournament"
STARTS = 4  # a run whose process is about to start has so many times `lost_after_s`: it loads its libraries first
LONGEST_WAIT_S = 900.0  # until a tournament that could not be held is tried again

# Errors that end a tournament and say something about who is in it: it would end so again.
FINAL = ("StoppedError", "CandidateError", "SpecError", "NotFoundError", "BudgetError", "LeakError")
# Errors that say that a store, a server or the data was not there.
OUTAGES = (
    *("StoreError", "BusyError", "DataError", "RuntimeError", "OSError", "ConnectionError", "ConnectError"),
    *("ReadTimeout", "ConnectTimeout", "ReadError", "RemoteProtocolError", "TimeoutError", "PrefectHTTPStatusError"),
)
_KIND = re.compile(r"exception: (?:[\w.]+\.)?(\w+)")


class Dispatcher:
    """Sends waiting candidates into tournaments, and looks after the runs.

    Args:
        workspace: Settings and stores. `settings.data` names the data; without it nothing is dispatched.

    Attributes:
        workspace: Settings and stores.
        queue: The queue in the workspace's ledger.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace, self.queue = workspace, Queue(workspace.ledger)
        self._free_since: dict[str, float] = {}  # flow run -> when its lock was first found free

    def advance(self) -> list[str]:
        """Do what the queue of this device needs now; safe to call at any time.

        Returns:
            What was done, a sentence each; [] when there was nothing to do.
        """
        settings = self.workspace.settings
        if settings.data is None:
            return []
        device = settings.device
        with get_client(sync_client=True) as client:
            done = []
            dispatch = self.queue.open(device)
            if dispatch is not None and not dispatch.last.end and dispatch.last.flow_run:
                done += self._look_after(client, dispatch)
                dispatch = self.queue.open(device)
            if dispatch is not None and dispatch.last.end in AGAIN and self._is_time(dispatch):
                dispatch = self._try_again(dispatch)
            if dispatch is None and (dispatch := self.queue.dispatch(device, settings.share_tournament)):
                done.append(f"{_names(dispatch)} may compete: {dispatch.id}")
            if dispatch is not None and not dispatch.last.end and not dispatch.last.flow_run:
                done += self._start(client, dispatch)
            return done

    def _start(self, client: SyncPrefectClient, dispatch: Dispatch) -> list[str]:
        try:
            deployment = client.read_deployment_by_name(DEPLOYMENT)
        except ObjectNotFound:
            get_logger("dispatch").warning("no process serves %s; %s waits", DEPLOYMENT, _names(dispatch))
            return []
        number = dispatch.last.number
        run = client.create_flow_run_from_deployment(
            deployment.id,
            parameters={"data": str(self.workspace.settings.data), "versions": list(dispatch.candidates)},
            idempotency_key=dispatch.key,
            name=f"{_names(dispatch)}" + (f", attempt {number}" if number > 1 else ""),
        )
        self.queue.start(dispatch.last, str(run.id))
        return [f"{_names(dispatch)}: attempt {number} is flow run {run.id} {run_link(str(run.id))}"]

    def _look_after(self, client: SyncPrefectClient, dispatch: Dispatch) -> list[str]:
        """End the last attempt if its run has ended."""
        last = dispatch.last
        end, reason = self._end_of(client, dispatch)
        if not end:
            return []
        self._free_since.pop(last.flow_run, None)
        self.queue.end(last, end, reason)
        if end == "given_up":
            self._tell(dispatch, reason)
        return [f"{_names(dispatch)}: attempt {last.number} {end}" + (f": {reason}" if reason else "")]

    def _try_again(self, dispatch: Dispatch) -> Dispatch | None:
        """Begin the next attempt; None when the tournament had finished before its run was killed."""
        again = self.queue.try_again(dispatch)
        if self._left(dispatch):
            return again
        self.queue.end(again.last, "completed", "its tournament has been held")
        return None

    def _end_of(self, client: SyncPrefectClient, dispatch: Dispatch) -> tuple[str, str]:
        """Return how the last attempt ended and why; "" while its run lasts."""
        end, reason = self._said_by_prefect(client, dispatch)
        if end in AGAIN and not self._left(dispatch):
            return "completed", "its tournament has been held"
        settings = self.workspace.settings
        failed, lost = dispatch.count("failed") + (end == "failed"), dispatch.count("lost", "outage") + 1
        if end == "failed" and failed >= settings.dispatch_failures:
            return "given_up", f"its tournament failed {counted(failed, 'time')}, the last time: {reason}"
        if end in ("lost", "outage") and lost >= settings.dispatch_losses:
            return "given_up", f"its tournament could not be held {counted(lost, 'time')}, the last time: {reason}"
        return end, reason

    def _said_by_prefect(self, client: SyncPrefectClient, dispatch: Dispatch) -> tuple[str, str]:
        flow_run = dispatch.last.flow_run
        try:
            run = client.read_flow_run(UUID(flow_run))
        except ObjectNotFound:
            return "lost", "Prefect does not know its flow run any more"
        state = run.state
        if state is None:
            return "", ""
        match state.type:
            case StateType.COMPLETED:
                return "completed", ""
            case StateType.CANCELLED:
                return "given_up", "its flow run was cancelled"
            case StateType.CRASHED:
                return "lost", state.message or "its process was ended"
            case StateType.FAILED:
                return _failure(state.message or "")
            case StateType.RUNNING | StateType.PENDING | StateType.CANCELLING if self._is_dead(run):
                return self._bury(client, run)
        return "", ""

    def _is_dead(self, run: FlowRun) -> bool:
        """Return whether nothing has shown for a while that a run lives, though it has been there as long.

        Its process shows it from when it begins to wait for its turn; whatever holds a tournament on the device counts,
        too, because a run of an earlier release shows nothing of its own.

        A process that is being started takes the lock when it has loaded its libraries, on a busy machine a minute
        later. Were it lost by then, two processes would start in place of one, and each would take longer still. One
        that has died meanwhile is reported by its worker.
        """
        patience = self.workspace.settings.lost_after_s
        if run.state is not None and run.state.is_pending():
            patience *= STARTS
        ledger = self.workspace.ledger
        if ledger.is_locked(device_lock(self.workspace.settings)) or ledger.is_worked_on(run_sign(run.id)):
            self._free_since.pop(str(run.id), None)
            return False
        free = time.monotonic() - self._free_since.setdefault(str(run.id), time.monotonic())
        since = run.state.timestamp if run.state else None
        there = (dt.datetime.now(dt.UTC) - since).total_seconds() if since else 0.0
        if there < 0:  # a clock was put back, ours or the server's: what was seen here counts alone
            there = free
        return min(free, there) > patience

    def _bury(self, client: SyncPrefectClient, run: FlowRun) -> tuple[str, str]:
        """Set a run that cannot go on to crashed or cancelled in Prefect."""
        if run.state is not None and run.state.is_cancelling():
            client.set_flow_run_state(run.id, run.state.model_copy(update={"type": StateType.CANCELLED}), force=True)
            return "given_up", "its flow run was cancelled"
        reason = "no process works on its tournament any more; the steps that were finished are stored"
        client.set_flow_run_state(run.id, Crashed(message=reason), force=True)
        return "lost", reason

    def _is_time(self, dispatch: Dispatch) -> bool:
        """Return whether the next attempt may begin: at once after a kill, after growing waits after failures."""
        last, settings = dispatch.last, self.workspace.settings
        if last.end == "lost" or last.ended_at is None:
            return True
        wait = min(LONGEST_WAIT_S, settings.retry_s * 2 ** (dispatch.count("failed", "outage") - 1))
        waited = (dt.datetime.now(dt.UTC) - last.ended_at).total_seconds()
        return not 0 <= waited < wait  # one that ended in the future did so before the clock was put back

    def _left(self, dispatch: Dispatch) -> set[str]:
        """Return the candidates of a dispatch that have been in no finished tournament."""
        return set(dispatch.candidates) - self.queue.tried(dispatch.candidates)

    def _tell(self, dispatch: Dispatch, reason: str) -> None:
        link = run_link(dispatch.last.flow_run)
        told = {
            (event.subject, event.payload["reason"]) for event in self.workspace.ledger.events(kind="candidate_failed")
        }
        for candidate in dispatch.candidates:
            if any(who == candidate and why and why in reason for who, why in told):
                continue  # its tournament has said so itself
            content = {"title": f"Candidate {candidate} failed, and is not tried again", "text": reason}
            links = {"Flow run": link} if link else {}
            announce("failure", candidate, content | {"links": links, "outcome": "failed"})


def _failure(message: str) -> tuple[str, str]:
    """Return how an attempt ended whose run failed with this message, and why."""
    found = _KIND.search(message)
    kind = found.group(1) if found else ""
    reason = message.partition("exception: ")[2] or message or "its flow run failed"
    if kind in FINAL:
        return "given_up", reason
    return ("outage" if kind in OUTAGES else "failed"), reason


def _names(dispatch: Dispatch) -> str:
    return ", ".join(dispatch.candidates)
