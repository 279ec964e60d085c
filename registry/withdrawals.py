"""Candidates that do not compete any more because somebody withdrew or cancelled them, and tournaments that must stop.

Each is an event of the ledger, and the last one on a candidate counts. Whoever works on a tournament looks for them
every second, in whichever process and on whichever machine it was asked for.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import select

from esci_tournament.registry import tables
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.records import Event
from esci_tournament.registry.rows import Rows

WITHDRAWN, REINSTATED = "candidate_withdrawn", "candidate_reinstated"  # kinds of events; subject: the candidate
STOPPED = "tournament_cancelled"  # kind of event, of the tournament


@dataclass(frozen=True)
class Withdrawal:
    """That a candidate does not compete.

    Attributes:
        candidate: Its id, `name/version`.
        event: Number of the event.
        at: When (UTC).
        by: Who, user@host.
        reason: Why.
        tournament: The tournament in which its training was cancelled, "" when it was in none.
    """

    candidate: str
    event: int
    at: dt.datetime
    by: str
    reason: str
    tournament: str = ""

    def __str__(self) -> str:
        return f"{'cancelled' if self.tournament else 'withdrawn'} by {self.by}: {self.reason}"


def withdrawals(ledger: Ledger, candidates: Collection[str] | None = None) -> dict[str, Withdrawal]:
    """Return the candidates that are withdrawn now.

    Args:
        ledger: The ledger.
        candidates: Ids of those that are asked for; default: all.

    Returns:
        Candidate id -> its withdrawal.
    """
    with ledger.reading() as rows:
        found = last_words(rows)
    return {
        id: _withdrawal(event)
        for id, event in found.items()
        if event.kind == WITHDRAWN and (candidates is None or id in candidates)
    }


def reinstatements(ledger: Ledger) -> dict[str, Event]:
    """Return the candidates whose last word is that they compete again: candidate id -> the event."""
    with ledger.reading() as rows:
        return {id: event for id, event in last_words(rows).items() if event.kind == REINSTATED}


def withdraw(ledger: Ledger, candidate: str, reason: str, tournament: str = "") -> tuple[Withdrawal, bool]:
    """Record that a candidate does not compete; whether it may be withdrawn is for the caller to say.

    Args:
        ledger: The ledger.
        candidate: Its id.
        reason: Why.
        tournament: The tournament that is to go on without it; "" for none.

    Returns:
        The withdrawal that stands, and whether it is new: one that is withdrawn already stays as it is.
    """
    with ledger.writing() as rows:
        last = last_words(rows).get(candidate)
        if last is not None and last.kind == WITHDRAWN:
            return _withdrawal(last), False
        payload = {"reason": reason} | ({"tournament": tournament} if tournament else {})
        values = {"tournament": None, "kind": WITHDRAWN, "subject": candidate}
        return _withdrawal(Event.of(rows.insert(tables.events, values, payload))), True


def reinstate(ledger: Ledger, candidate: str, reason: str = "", failed: bool = False) -> bool:
    """Record that a candidate which was withdrawn competes again.

    Args:
        ledger: The ledger.
        candidate: Its id.
        reason: Why.
        failed: Whether it is put back because it has failed, withdrawn or not.

    Returns:
        Whether it was recorded; False when it was not withdrawn.
    """
    with ledger.writing() as rows:
        last = last_words(rows).get(candidate)
        if not failed and (last is None or last.kind != WITHDRAWN):
            return False
        values = {"tournament": None, "kind": REINSTATED, "subject": candidate}
        rows.insert(tables.events, values, {"reason": reason} if reason else None)
        return True


def stop_tournament(ledger: Ledger, tournament: str, reason: str) -> Event:
    """Record that the run that holds a tournament is to end; a later run of the same tournament is not concerned."""
    return ledger.record_event(STOPPED, "", tournament, {"reason": reason})


def stop_asked(ledger: Ledger, tournament: str, since: int) -> str:
    """Return why a tournament is to end, "" when it is not.

    Args:
        ledger: The ledger.
        tournament: Its id.
        since: Number of the last event before the run began that asks.
    """
    found = [event for event in ledger.events(tournament, STOPPED) if event.id > since]
    return f"cancelled by {found[0].who}: {found[0].payload['reason']}" if found else ""


def last_words(rows: Rows) -> dict[str, Event]:
    """Return the newest withdrawal or reinstatement of every candidate that has one."""
    events = tables.events
    query = select(events).where(events.c.kind.in_((WITHDRAWN, REINSTATED))).order_by(events.c.id)
    return {row["subject"]: Event.of(row) for row in rows.connection.execute(query).mappings()}


def tried_candidates(rows: Rows, candidates: Collection[str] | None = None) -> set[str]:
    """Return the candidates that have been in a finished tournament, and were not put back into the running since.

    Args:
        rows: The rows that a transaction sees.
        candidates: Ids of those that are asked for; default: all.
    """
    entries, events = tables.entries, tables.events
    query = select(entries.c.candidate, events.c.id).join(events, events.c.tournament == entries.c.tournament)
    query = query.where(events.c.kind == "finished")
    if candidates is not None:
        query = query.where(entries.c.candidate.in_(candidates))
    last: dict[str, int] = {}
    for candidate, event in rows.connection.execute(query):
        last[candidate] = max(event, last.get(candidate, 0))
    back = {id: event.id for id, event in last_words(rows).items() if event.kind == REINSTATED}
    return {candidate for candidate, event in last.items() if back.get(candidate, 0) < event}


def _withdrawal(event: Event) -> Withdrawal:
    words = event.payload
    return Withdrawal(
        event.subject, event.id, event.at, event.who, str(words.get("reason", "")), str(words.get("tournament", ""))
    )
