"""The state of every candidate, which is not stored: it follows from the rows of the ledger.

registered -> refused, or queued -> training -> judged -> failed, benched, in review or member, which a later
tournament may change again. One whose tournament no living process works on is interrupted; one that was withdrawn
stays so until it is reinstated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.queue import Dispatch, Queue
from esci_tournament.registry.records import Arrival, Event
from esci_tournament.registry.reviews import waiting
from esci_tournament.registry.versions import FAILED_TAG, FLOW_RUN_TAG, REFUSED_TAG, STATE_TAG, WITHDRAWN_TAG
from esci_tournament.registry.withdrawals import Withdrawal, reinstatements, withdrawals

State = Literal[
    "registered", "queued", "refused", "training", "judged", "in review", "member", "benched", "failed",
    "interrupted", "withdrawn",
]  # fmt: skip
INTERRUPTED = "no process works on its tournament; the same command continues it"


@dataclass(frozen=True)
class CandidateState:
    """Where a candidate stands.

    Attributes:
        state: In one word.
        tournament: Id of the last one it entered, "" for none.
        flow_run: Prefect's id of the last run that it was sent into, "" for none.
        reason: Why it was refused, failed, interrupted or withdrawn, else "".
    """

    state: State = "registered"
    tournament: str = ""
    flow_run: str = ""
    reason: str = ""


def states(ledger: Ledger, ensemble: str) -> dict[str, CandidateState]:
    """Return the state of every candidate that the ledger knows; one that it does not know is just registered.

    Args:
        ledger: The ledger.
        ensemble: Name of the ensemble whose champion has members.

    Returns:
        Candidate id -> state.
    """
    queue = Queue(ledger)
    members = _members(ledger, ensemble)
    arrivals: dict[str, Arrival] = {}
    for arrival in queue.arrivals():
        arrivals[arrival.candidate] = arrival  # the last one counts
    dispatches = {candidate: one for one in queue.dispatches() for candidate in one.candidates}
    last_entry = {entry.candidate: entry.tournament for entry in ledger.entries()}
    tournaments = _Tournaments(ledger, ensemble)
    gone = withdrawals(ledger)
    back = reinstatements(ledger)
    known = {one.candidate for one in ledger.candidates()} | set(arrivals) | set(gone)
    return {
        candidate: _state(
            candidate,
            candidate in members,
            arrivals.get(candidate),
            dispatches.get(candidate),
            last_entry.get(candidate, ""),
            tournaments,
            gone.get(candidate),
            back.get(candidate),
        )
        for candidate in known
    }


def at_work(ledger: Ledger) -> frozenset[str]:
    """Return the tournaments that a living process works on now."""
    ended = {event.tournament for event in ledger.events(kind="finished")}
    left = [one.tournament for one in ledger.tournaments() if one.tournament not in ended]
    return frozenset(one for one in left if ledger.is_worked_on(one))


class _Tournaments:
    """How each tournament stands."""

    def __init__(self, ledger: Ledger, ensemble: str) -> None:
        self._ledger = ledger
        self._lives: dict[str, bool] = {}
        self.ends: dict[str, str] = {}  # finished, failed or running
        self.why: dict[str, str] = {}
        self.ended: dict[str, int] = {}  # number of the event that ended it last
        self.failed: dict[tuple[str, str], str] = {}  # tournament, candidate -> why
        for event in ledger.events():
            name = event.tournament or ""
            if event.kind == "candidate_failed":
                self.failed[name, event.subject] = str(event.payload.get("reason", ""))
            elif event.kind in ("finished", "failed", "continued") and self.ends.get(name) != "finished":
                self.ends[name] = "running" if event.kind == "continued" else event.kind
                self.why[name] = str(event.payload.get("reason", ""))
                self.ended[name] = event.id
        self.judged = {verdict.tournament for verdict in ledger.verdicts()}
        self.open = {case.tournament for case in waiting(ledger, ensemble)}
        self.challengers = {one.tournament: set(one.payload.get("members", ())) for one in ledger.ensembles()}

    def lives(self, tournament: str) -> bool:
        """Return whether a living process works on a tournament."""
        if tournament not in self._lives:
            self._lives[tournament] = self._ledger.is_worked_on(tournament)
        return self._lives[tournament]


def _state(
    candidate: str,
    is_member: bool,
    arrival: Arrival | None,
    dispatch: Dispatch | None,
    tournament: str,
    tournaments: _Tournaments,
    withdrawal: Withdrawal | None,
    back: Event | None,
) -> CandidateState:
    run = dispatch.last.flow_run if dispatch else ""

    def be(state: State, reason: str = "") -> CandidateState:
        return CandidateState(state, tournament, run, reason)

    if is_member:
        return be("member")
    if withdrawal is not None:
        return be("withdrawn", str(withdrawal))
    end = tournaments.ends.get(tournament, "running") if tournament else ""
    if back is not None and end != "running" and _is_newest(back, dispatch, tournaments.ended.get(tournament, 0)):
        return be("queued" if arrival and arrival.outcome != "refused" else "registered")
    if end == "finished":
        if (tournament, candidate) in tournaments.failed:
            return be("failed", tournaments.failed[tournament, candidate])
        waits = tournament in tournaments.open and candidate in tournaments.challengers.get(tournament, ())
        return be("in review" if waits else "benched")
    if dispatch is not None and dispatch.last.end == "given_up":
        return be("failed", dispatch.last.reason)
    if end == "running":
        if not tournaments.lives(tournament):
            return be("interrupted", INTERRUPTED)
        if (tournament, candidate) in tournaments.failed:
            return be("failed", tournaments.failed[tournament, candidate])
        return be("judged" if tournament in tournaments.judged else "training")
    if dispatch is not None and dispatch.is_open:
        return be("queued")  # its flow run is being started, or is about to be tried again
    if dispatch is not None:  # its tournament ended, and it was not in it: it could not enter
        return be("failed", tournaments.failed.get((tournament, candidate), "it did not enter its tournament"))
    if end == "failed" and (arrival is None or arrival.outcome != "queued"):
        return be("failed", tournaments.why.get(tournament, ""))
    if arrival is None:
        return be("registered")
    if arrival.outcome == "refused":
        return be("refused", str(arrival.payload.get("complaint", "")))
    return be("queued" if arrival.outcome == "queued" else "benched")


def _is_newest(back: Event, dispatch: Dispatch | None, ended: int) -> bool:
    """Return whether a reinstatement is newer than whatever came of the candidate."""
    if dispatch is not None and (dispatch.is_open or (dispatch.last.ended_at or back.at) > back.at):
        return False
    return back.id > ended


def _members(ledger: Ledger, ensemble: str) -> set[str]:
    champion = ledger.champion(ensemble)
    if champion is None:
        return set()
    built = [one for one in ledger.ensembles() if one.name == ensemble and one.version == champion.version]
    return set(built[-1].payload.get("members", ())) if built else set()


def tags_of(state: CandidateState, link: str) -> Mapping[str, str | None]:
    """Return the tags that show a state in the model registry.

    Args:
        state: Where the candidate stands.
        link: Address of its flow run, "" for none.

    Returns:
        Tag -> value, None for tags that must not be there; reasons are cut to 4,000 characters.

    Example:
        >>> tags = tags_of(CandidateState("refused", reason="no such checkpoint"), "")
        >>> tags["tournament.state"], tags["tournament.refused"], tags["tournament.failed"]
        ('refused', 'no such checkpoint', None)
    """
    why = state.reason[:4000] or "no reason given"
    return {
        STATE_TAG: state.state,
        REFUSED_TAG: why if state.state == "refused" else None,
        FAILED_TAG: why if state.state == "failed" else None,
        WITHDRAWN_TAG: why if state.state == "withdrawn" else None,
        FLOW_RUN_TAG: link or None,
    }
