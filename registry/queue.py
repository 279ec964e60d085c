"""Candidates that wait for a tournament: who arrived, who was sent into which one, and how each attempt ended.

As everywhere in the ledger, rows are appended and states follow from them. A dispatch is a set of candidates that
enter one tournament together; an attempt is one flow run of it. An attempt is recorded before its run is asked for, so
that after a crash the same run is asked for again (Prefect's idempotency key).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from uuid import uuid4

from sqlalchemy import func, select

from esci_tournament.registry import tables
from esci_tournament.registry.errors import UsageError
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.records import Arrival
from esci_tournament.registry.rows import Payload, Row, Rows
from esci_tournament.registry.withdrawals import REINSTATED, WITHDRAWN, last_words, tried_candidates

# completed; failed: for a reason that may be the candidate's; outage: a store or the data was not there;
# lost: its process was killed; given_up: no attempt follows.
ENDS = ("completed", "failed", "outage", "lost", "given_up")
AGAIN = ("failed", "outage", "lost")
_AGAIN = "again"  # of a dispatch's payload: candidate -> number of the event that reinstated it
_LOOK = ":"  # between a digest and the number of a further look


@dataclass(frozen=True)
class DispatchAttempt:
    """One flow run of a dispatch.

    Attributes:
        id: Number of its row.
        number: 1, 2, 3 ... within the dispatch.
        at: When it was recorded (UTC).
        flow_run: Id of the run, "" until Prefect has answered.
        end: One of `ENDS`, "" while it lasts.
        ended_at: When it ended (UTC), None while it lasts.
        reason: Why it ended, "" when there is nothing to say.
    """

    id: int
    number: int
    at: dt.datetime
    flow_run: str = ""
    end: str = ""
    ended_at: dt.datetime | None = None
    reason: str = ""


@dataclass(frozen=True)
class Dispatch:
    """Candidates sent into a tournament together, and the attempts at it.

    Attributes:
        id: `d-` and 16 hexadecimal digits.
        device: The device whose tournaments are held one after the other, as settings name it.
        candidates: Their ids, in the order in which they were queued.
        attempts: Oldest first; there is at least one.
    """

    id: str
    device: str
    candidates: tuple[str, ...]
    attempts: tuple[DispatchAttempt, ...]

    @property
    def last(self) -> DispatchAttempt:
        """The newest attempt."""
        return self.attempts[-1]

    @property
    def is_open(self) -> bool:
        """Whether it still occupies its device: it runs, or is about to be tried again."""
        return self.last.end in ("", *AGAIN)

    def count(self, *ends: str) -> int:
        """Return how many attempts ended in one of these ways, which are some of `ENDS`."""
        return sum(one.end in ends for one in self.attempts)

    @property
    def key(self) -> str:
        """Idempotency key of the last attempt's flow run: asked for again with it, Prefect starts no second one."""
        return f"{self.id}-{self.last.number}"


class Queue:
    """The queue in a ledger; methods that record may be called again with the same arguments, and change nothing then.

    Raises:
        StoreError: By every method, when the database cannot be read or written.
        BusyError: By every method that records, when another process holds the database for too long.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    # Who arrived

    def arrive(
        self, candidate: str, digest: str, outcome: str, payload: Payload = None, again: bool = False
    ) -> Arrival | None:
        """Record that a version was noticed, or looked at again.

        Args:
            candidate: Its id, `name/version`.
            digest: Digest of the content of its spec tag. Refused once under each content, it enters only once.
            outcome: queued, refused, or tried.
            payload: `entered` (when it was registered), `complaint` (why it was refused).
            again: Whether one that was refused with this content is looked at again, because a refusal may follow from
                what has changed since: a setting, a folder, what is installed.

        Returns:
            The arrival; None when it had arrived before, or is refused again with the same complaint.

        Raises:
            UsageError: If the outcome is no such word.
        """
        if outcome not in ("queued", "refused", "tried"):
            raise UsageError(f"arrival of {candidate} as {outcome!r}; it is queued, refused or tried")
        with self._ledger.writing() as rows:
            before = rows.all(tables.arrivals, candidate=candidate)
            same = [row for row in before if content_of(row["digest"]) == digest]
            if any(row["outcome"] != "refused" for row in before) or (same and not again):
                return None
            told = dict(payload or {}).get("complaint")
            last = before[-1] if before else None
            if last in same and outcome == "refused" and last["payload"].get("complaint") == told:
                return None
            if same:  # the natural key is candidate and digest: further looks at one content are numbered
                digest = f"{digest}{_LOOK}{len(same) + 1}"
            values = {"candidate": candidate, "digest": digest, "outcome": outcome}
            return Arrival.of(rows.insert(tables.arrivals, values, payload))

    def arrivals(self, candidates: Collection[str] | None = None) -> list[Arrival]:
        """Return all arrivals, or those of some candidate ids, oldest first."""
        with self._ledger.reading() as rows:
            if candidates is None or len(candidates) > 500:
                found = rows.all(tables.arrivals)
            else:
                query = select(tables.arrivals).where(tables.arrivals.c.candidate.in_(candidates))
                found = list(rows.connection.execute(query.order_by("id")).mappings())
            return [Arrival.of(row) for row in found if candidates is None or row["candidate"] in candidates]

    def refused(self) -> dict[str, Arrival]:
        """Return the last arrival of every candidate that was refused and has not entered since."""
        last = {one.candidate: one for one in self.arrivals()}
        return {candidate: one for candidate, one in last.items() if one.outcome == "refused"}

    def waiting(self) -> list[Arrival]:
        """Return the arrivals that wait for a tournament, the first registered first.

        Those are queued, were neither dispatched nor tried by hand, and are not withdrawn; or were reinstated since.
        """
        with self._ledger.reading() as rows:
            return _waiting(rows)

    def tried(self, candidates: Collection[str]) -> set[str]:
        """Return those of these candidate ids that have been in a finished tournament, and not reinstated since."""
        with self._ledger.reading() as rows:
            return tried_candidates(rows, candidates)

    # Who is sent into which tournament

    def dispatch(self, device: str, share: int) -> Dispatch | None:
        """Record a dispatch of the candidates that have waited longest, and its first attempt.

        Candidates that were in a finished tournament meanwhile, or are withdrawn, are left out.

        Args:
            device: The device whose tournaments are held one after the other.
            share: How many candidates may share the tournament.

        Returns:
            The dispatch; None when the device has an open one or nothing waits.
        """
        with self._ledger.writing() as rows:
            if _dispatches(rows, device, only_open=True):
                return None
            chosen = _waiting(rows)[:share]
            if not chosen:
                return None
            dispatch = f"d-{uuid4().hex[:16]}"
            # An arrival is sent once; what sends it again is a reinstatement, by the number of its event.
            back = _reinstated(rows)
            again = {row.candidate: back[row.candidate] for row in chosen if row.candidate in back}
            rows.insert(tables.dispatches, {"dispatch": dispatch, "device": device}, {_AGAIN: again} if again else None)
            for row in chosen:
                if rows.one(tables.dispatched, {"arrival": row.id}) is None:
                    rows.insert(tables.dispatched, {"dispatch": dispatch, "arrival": row.id})
            rows.insert(tables.attempts, {"dispatch": dispatch, "number": 1})
            return _dispatches(rows, device, only_open=True)[0]

    def try_again(self, dispatch: Dispatch) -> Dispatch:
        """Record the next attempt of a dispatch whose last one failed or was lost.

        Args:
            dispatch: The dispatch as it was read; when it has had another attempt since, nothing is recorded.

        Returns:
            The dispatch as it is now.
        """
        with self._ledger.writing() as rows:
            last = rows.all(tables.attempts, dispatch=dispatch.id)[-1]
            ended = rows.one(tables.attempt_steps, {"attempt": last["id"], "step": "ended"})
            if last["number"] == dispatch.last.number and ended is not None and ended["outcome"] in AGAIN:
                rows.insert(tables.attempts, {"dispatch": dispatch.id, "number": last["number"] + 1})
            return next(one for one in _dispatches(rows, dispatch.device) if one.id == dispatch.id)

    def start(self, attempt: DispatchAttempt, flow_run: str) -> None:
        """Record the id of the flow run that an attempt is.

        Args:
            attempt: The attempt.
            flow_run: Prefect's id of the run.

        Raises:
            StoreError: If the attempt is on record with another run.
        """
        with self._ledger.writing() as rows:
            rows.append(tables.attempt_steps, {"attempt": attempt.id, "step": "started"}, {"outcome": flow_run})

    def end(self, attempt: DispatchAttempt, outcome: str, reason: str = "") -> bool:
        """Record how an attempt ended.

        Args:
            attempt: The attempt.
            outcome: One of `ENDS`.
            reason: Why.

        Returns:
            Whether it was recorded; False when it had ended before, in whatever way.

        Raises:
            UsageError: If the outcome is none of `ENDS`.
        """
        if outcome not in ENDS:
            raise UsageError(f"end {outcome!r} of an attempt; it is one of {', '.join(ENDS)}")
        natural = {"attempt": attempt.id, "step": "ended"}
        with self._ledger.writing() as rows:
            if rows.one(tables.attempt_steps, natural) is not None:
                return False
            rows.insert(tables.attempt_steps, natural | {"outcome": outcome}, {"reason": reason})
            return True

    def dispatches(self, device: str | None = None) -> list[Dispatch]:
        """Return all dispatches, or those of a device, oldest first."""
        with self._ledger.reading() as rows:
            return _dispatches(rows, device)

    def open(self, device: str) -> Dispatch | None:
        """Return the dispatch that occupies a device, None when there is none."""
        with self._ledger.reading() as rows:
            return next(iter(_dispatches(rows, device, only_open=True)), None)

    def mark(self) -> tuple[int, ...]:
        """Return a mark that changes whenever a row is appended that a candidate's state may follow from.

        Returns:
            The highest row number of each table concerned, 0 for an empty one.
        """
        watched = (
            *(tables.candidates, tables.arrivals, tables.attempts, tables.attempt_steps, tables.events),
            *(tables.entries, tables.verdicts, tables.decisions, tables.ensembles, tables.promotions),
        )
        with self._ledger.reading() as rows:
            return tuple(rows.connection.scalar(select(func.max(table.c.id))) or 0 for table in watched)


def content_of(digest: str) -> str:
    """Return the digest of the spec tag's content in the digest of an arrival, which may be a further look at it."""
    return digest.partition(_LOOK)[0]


def _waiting(rows: Rows) -> list[Arrival]:
    arrivals = tables.arrivals
    words = last_words(rows)
    withdrawn = {id for id, event in words.items() if event.kind == WITHDRAWN}
    sent = select(tables.dispatched.c.arrival)
    finished = select(tables.events.c.tournament).where(tables.events.c.kind == "finished")
    tried = select(tables.entries.c.candidate).where(tables.entries.c.tournament.in_(finished))
    query = select(arrivals).where(
        arrivals.c.outcome == "queued", arrivals.c.id.not_in(sent), arrivals.c.candidate.not_in(tried)
    )
    found = {row["candidate"]: Arrival.of(row) for row in rows.connection.execute(query).mappings()}
    if back := [
        id for id, event in _reinstated(rows).items() if id not in found and not _was_answered(rows, id, event)
    ]:
        query = select(arrivals).where(arrivals.c.candidate.in_(back), arrivals.c.outcome != "refused")
        found |= {row["candidate"]: Arrival.of(row) for row in rows.connection.execute(query).mappings()}
    waiting = [row for id, row in found.items() if id not in withdrawn]
    return sorted(waiting, key=lambda row: (row.payload.get("entered", ""), row.id))


def _reinstated(rows: Rows) -> dict[str, int]:
    """Return the candidates that were put back into the running last, each with the number of that event."""
    return {id: event.id for id, event in last_words(rows).items() if event.kind == REINSTATED}


def _was_answered(rows: Rows, candidate: str, event: int) -> bool:
    """Return whether a reinstatement has led to a dispatch, or to a tournament that was finished since."""
    if any((row["payload"].get(_AGAIN) or {}).get(candidate) == event for row in rows.all(tables.dispatches)):
        return True
    return candidate in tried_candidates(rows, [candidate])


def _dispatches(rows: Rows, device: str | None, only_open: bool = False) -> list[Dispatch]:
    dispatches, dispatched, attempts, steps = (
        *(tables.dispatches, tables.dispatched),
        *(tables.attempts, tables.attempt_steps),
    )
    wanted = select(dispatches.c.dispatch)
    if device is not None:
        wanted = wanted.where(dispatches.c.device == device)
    if only_open:
        closed = select(attempts.c.dispatch).join(steps, steps.c.attempt == attempts.c.id)
        closed = closed.where(steps.c.step == "ended", steps.c.outcome.not_in(AGAIN))
        wanted = wanted.where(dispatches.c.dispatch.not_in(closed))
    inside: dict[str, list[str]] = {}
    joined = select(dispatched.c.dispatch, tables.arrivals.c.candidate).where(dispatched.c.dispatch.in_(wanted))
    joined = joined.join(tables.arrivals, tables.arrivals.c.id == dispatched.c.arrival).order_by(dispatched.c.id)
    for dispatch, candidate in rows.connection.execute(joined):
        inside.setdefault(dispatch, []).append(candidate)
    for row in rows.connection.execute(select(dispatches).where(dispatches.c.dispatch.in_(wanted))).mappings():
        there = inside.setdefault(row["dispatch"], [])
        there.extend(id for id in row["payload"].get(_AGAIN) or () if id not in there)
    tries: dict[str, list[DispatchAttempt]] = {}
    of_them = select(attempts).where(attempts.c.dispatch.in_(wanted)).order_by(attempts.c.id)
    tried = list(rows.connection.execute(of_them).mappings())
    taken = select(steps).where(steps.c.attempt.in_(select(attempts.c.id).where(attempts.c.dispatch.in_(wanted))))
    found = {(row["attempt"], row["step"]): row for row in rows.connection.execute(taken).mappings()}
    for row in tried:
        tries.setdefault(row["dispatch"], []).append(_attempt(row, found))
    ids = rows.connection.execute(
        select(dispatches.c.dispatch, dispatches.c.device)
        .where(dispatches.c.dispatch.in_(wanted))
        .order_by(dispatches.c.id)
    )
    return [Dispatch(id, where, tuple(inside.get(id, ())), tuple(tries[id])) for id, where in ids]


def _attempt(row: Row, steps: Mapping[tuple[int, str], Row]) -> DispatchAttempt:
    started, ended = steps.get((row["id"], "started")), steps.get((row["id"], "ended"))
    return DispatchAttempt(
        id=row["id"],
        number=row["number"],
        at=row["at"],
        flow_run=started["outcome"] if started else "",
        end=ended["outcome"] if ended else "",
        ended_at=ended["at"] if ended else None,
        reason=ended["payload"].get("reason", "") if ended else "",
    )
