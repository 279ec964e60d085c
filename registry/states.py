"""The state of every candidate, which is not stored: it follows from the rows of the ledger.

registered -> refused, or queued -> training -> judged -> failed, benched, in review or member, which a later
tournament may change again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.queue import Dispatch, Queue
from esci_tournament.registry.records import Arrival
from esci_tournament.registry.reviews import waiting
from esci_tournament.registry.versions import FAILED_TAG, FLOW_RUN_TAG, REFUSED_TAG, STATE_TAG

State = Literal["registered", "queued", "refused", "training", "judged", "in review", "member", "benched", "failed"]


@dataclass(frozen=True)
class CandidateState:
    """Where a candidate stands.

    Attributes:
        state: In one word.
        tournament: Id of the last one it entered, "" for none.
        flow_run: Prefect's id of the last run that it was sent into, "" for none.
        reason: Why it was refused or failed, else "".
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
    known = {one.candidate for one in ledger.candidates()} | set(arrivals)
    return {
        candidate: _state(
            candidate,
            candidate in members,
            arrivals.get(candidate),
            dispatches.get(candidate),
            last_entry.get(candidate, ""),
            tournaments,
        )
        for candidate in known
    }


class _Tournaments:
    """How each tournament stands."""

    def __init__(self, ledger: Ledger, ensemble: str) -> None:
        self.ends: dict[str, str] = {}  # finished, failed or running
        self.why: dict[str, str] = {}
        self.failed: dict[tuple[str, str], str] = {}  # tournament, candidate -> why
        for event in ledger.events():
            name = event.tournament or ""
            if event.kind == "candidate_failed":
                self.failed[name, event.subject] = str(event.payload.get("reason", ""))
            elif event.kind in ("finished", "failed", "continued") and self.ends.get(name) != "finished":
                self.ends[name] = "running" if event.kind == "continued" else event.kind
                self.why[name] = str(event.payload.get("reason", ""))
        self.judged = {verdict.tournament for verdict in ledger.verdicts()}
        self.open = {case.tournament for case in waiting(ledger, ensemble)}
        self.challengers = {one.tournament: set(one.payload.get("members", ())) for one in ledger.ensembles()}


def _state(
    candidate: str,
    is_member: bool,
    arrival: Arrival | None,
    dispatch: Dispatch | None,
    tournament: str,
    tournaments: _Tournaments,
) -> CandidateState:
    run = dispatch.last.flow_run if dispatch else ""

    def be(state: State, reason: str = "") -> CandidateState:
        return CandidateState(state, tournament, run, reason)

    if is_member:
        return be("member")
    end = tournaments.ends.get(tournament, "running") if tournament else ""
    if end == "finished":
        if (tournament, candidate) in tournaments.failed:
            return be("failed", tournaments.failed[tournament, candidate])
        waits = tournament in tournaments.open and candidate in tournaments.challengers.get(tournament, ())
        return be("in review" if waits else "benched")
    if dispatch is not None and dispatch.last.end == "given_up":
        return be("failed", dispatch.last.reason)
    if end == "running":
        return be("judged" if tournament in tournaments.judged else "training")
    if dispatch is not None and dispatch.is_open:
        return be("training" if run and not dispatch.last.end else "queued")
    if dispatch is not None:  # its tournament ended, and it was not in it: it could not enter
        return be("failed", tournaments.failed.get((tournament, candidate), "it did not enter its tournament"))
    if end == "failed" and (arrival is None or arrival.outcome != "queued"):
        return be("failed", tournaments.why.get(tournament, ""))
    if arrival is None:
        return be("registered")
    if arrival.outcome == "refused":
        return be("refused", str(arrival.payload.get("complaint", "")))
    return be("queued" if arrival.outcome == "queued" else "benched")


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
        FLOW_RUN_TAG: link or None,
    }
