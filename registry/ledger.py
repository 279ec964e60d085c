"""The append-only record of tournaments: what was tried, scored, judged, decided and promoted, by whom and when.

No state is stored, it follows from the rows: the champion from the promotions, a tournament's state from its events.
Every method that records, but for `record_event` and `fail_tournament`, has a natural key; recording the same thing
again (a run after a kill) returns the row that stands.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Self, TypeVar

from sqlalchemy import Table, func, select

from esci_tournament.registry import tables
from esci_tournament.registry.database import Database
from esci_tournament.registry.errors import BusyError, NotFoundError, PolicyError, UsageError
from esci_tournament.registry.processes import user_and_host
from esci_tournament.registry.records import (
    Approval,
    CandidateRecord,
    Chapter,
    DataVersion,
    Decision,
    EnsembleRecord,
    Entry,
    Event,
    LookRecord,
    Promotion,
    Ranking,
    Record,
    Review,
    SchemaRecord,
    ScoreRecord,
    SelectionRecord,
    Standing,
    Tournament,
    VerdictRecord,
)
from esci_tournament.registry.rows import Payload, Rows
from esci_tournament.registry.validity import judged_promotions, naming_manifest, registrants_of, replay

SomeRecord = TypeVar("SomeRecord", bound=Record)

STEPS = ("champion_moved", "previous_moved", "done")


class Ledger:
    """The ledger at one address. Use :meth:`open`; it may be used as a context manager.

    A `payload` is a mapping that JSON can hold. Numpy scalars and arrays become numbers and lists, NaN and infinity
    null, and other objects their `str`. When a row stands under the same key already, its payload stays as it is.

    Attributes:
        who: Who new rows are signed by, user@host.

    Raises:
        StoreError: By every method, when the database cannot be read or written, or contradicts what is recorded.
        BusyError: By every method that records, when another process holds the database for too long.
    """

    def __init__(self, database: Database, who: str) -> None:
        self._database = database
        self.who = who

    @classmethod
    def open(cls, url: str, who: str | None = None) -> Ledger:
        """Open the ledger at a SQLAlchemy URL, its schema created when missing and upgraded when old.

        Args:
            url: SQLAlchemy URL of a SQLite file or of PostgreSQL.
            who: Who new rows are signed by; default: user@host of this process.

        Returns:
            The open ledger.

        Raises:
            StoreError: If it cannot be opened, has a newer schema than this code knows, or an older one that this
                role of PostgreSQL may not change.
            UsageError: If `url` names neither a SQLite file nor PostgreSQL.
        """
        database, who = Database.open(url), who or user_and_host()
        try:
            database.create_schema(who)
        except BaseException:
            database.engine.dispose()
            raise
        return cls(database, who)

    def close(self) -> None:
        """Close the connections to the database."""
        self._database.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def exclusive(self, name: str, seconds: float = 60.0) -> AbstractContextManager[None]:
        """Return a context manager that holds a lock among all processes on this ledger; it ends with its process.

        Args:
            name: What is locked.
            seconds: How long to wait for another process that holds it.

        Returns:
            The context manager; entering it raises BusyError when the lock stays held.
        """
        return self._database.exclusive(name, seconds)

    def keep(self, name: str, seconds: float = 60.0) -> AbstractContextManager[None]:
        """Return a context manager that holds a lock for hours; it survives a restart of the database.

        The lock ends with its process.

        Args:
            name: What is locked.
            seconds: How long to wait for another process that holds it.

        Returns:
            The context manager; entering it raises BusyError when the lock stays held.
        """
        return self._database.keep(name, seconds)

    def working_on(self, what: str, seconds: float = 10.0) -> AbstractContextManager[None]:
        """Return a context manager that shows that this process works on something; it ends with its process.

        Args:
            what: Id of a tournament, or another name.
            seconds: How long to wait for others that look, or work on it.

        Returns:
            The context manager; entering it raises BusyError when another process works on it.
        """
        return self._database.presence(f"work on {what}", seconds)

    def is_worked_on(self, what: str) -> bool:
        """Return whether a living process works on it, on any machine; `what` as for :meth:`working_on`."""
        return self._database.is_present(f"work on {what}")

    def is_locked(self, name: str) -> bool:
        """Return whether a process on this ledger holds the lock `name`; to find out, it is taken for a moment."""
        try:
            with self._database.exclusive(name, 0.0):
                return False
        except BusyError:
            return True

    def schemas(self) -> list[SchemaRecord]:
        """Return which schemas the ledger has had, the oldest that is on record first."""
        return self._all(SchemaRecord, tables.schema_versions)

    # What a tournament is made of

    def record_data_version(self, digest: str, payload: Payload = None) -> DataVersion:
        """Record a data version by its digest; `payload` may say where the data comes from and how much it is."""
        return self._record(DataVersion, tables.data_versions, {"digest": digest}, payload=payload)

    def data_versions(self) -> list[DataVersion]:
        """Return all data versions on record, oldest first."""
        return self._all(DataVersion, tables.data_versions)

    def record_candidate(self, candidate: str, digest: str, family: str, payload: Payload = None) -> CandidateRecord:
        """Record a candidate with the digest of its spec.

        Args:
            candidate: Its id, `name/version`.
            digest: Digest of its spec.
            family: Its family, such as that of cross-encoders.
            payload: More about it.

        Returns:
            The row that stands for it.

        Raises:
            StoreError: If it is on record with another digest or family.
        """
        fixed = {"digest": digest, "family": family}
        return self._record(CandidateRecord, tables.candidates, {"candidate": candidate}, fixed, payload)

    def record_scores(
        self, candidate: str, data_version: str, recipe: str, digest: str, payload: Payload = None
    ) -> ScoreRecord:
        """Record that scores were stored.

        Args:
            candidate: Candidate id.
            data_version: Digest of the data.
            recipe: Digest of all else that the scores follow from.
            digest: Digest of their content.
            payload: More about them.

        Returns:
            The row that stands for all four.
        """
        natural = {"candidate": candidate, "data_version": data_version, "recipe": recipe, "digest": digest}
        return self._record(ScoreRecord, tables.scores, natural, payload=payload)

    # A tournament's life

    def start_tournament(
        self, tournament: str, data_version: str, entries: Mapping[str, str] | None = None, payload: Payload = None
    ) -> Tournament:
        """Record the start of a tournament, or that one which failed goes on.

        Args:
            tournament: Its id, the same whenever the same tournament is run again.
            data_version: Digest of a recorded data version.
            entries: Role (newcomer, member, bench) of each recorded candidate.
            payload: What the tournament is about; `against` and `champion` are read again when it goes on.

        Returns:
            The row of the tournament, as it was first recorded.

        Raises:
            StoreError: If it is on record with another data version, or a candidate in it with another role.
        """
        with self._writing() as rows:
            fixed = {"data_version": data_version}
            row = rows.append(tables.tournaments, {"tournament": tournament}, fixed, payload)
            for candidate, role in (entries or {}).items():
                natural = {"tournament": tournament, "candidate": candidate}
                rows.append(tables.entries, natural, {"role": role})
            if _state(rows, tournament) == "failed":
                rows.insert(tables.events, {"tournament": tournament, "kind": "continued", "subject": ""})
            return Tournament.of(row)

    def finish_tournament(self, tournament: str, payload: Payload = None) -> Event:
        """Record that a tournament ended with a verdict; called again, it returns the event that stands."""
        natural = {"tournament": tournament, "kind": "finished", "subject": ""}
        return self._record(Event, tables.events, natural, payload=payload)

    def fail_tournament(self, tournament: str, reason: str, payload: Payload = None) -> Event:
        """Record that a tournament could not go on; each call is an event of its own.

        Args:
            tournament: Id of the tournament.
            reason: Why, in words.
            payload: More about it.

        Returns:
            The new event, of the kind `failed`.
        """
        return self.record_event("failed", "", tournament, dict(payload or {}) | {"reason": reason})

    def record_event(self, kind: str, subject: str, tournament: str | None = None, payload: Payload = None) -> Event:
        """Record that something happened; each call is an event of its own.

        Args:
            kind: What happened, in one word such as `failed` or `candidate_failed`.
            subject: What it happened to, such as a candidate id; "" for the tournament itself.
            tournament: Id of the tournament it belongs to, None for none.
            payload: More about it, such as `reason`.

        Returns:
            The new event.
        """
        values = {"tournament": tournament, "kind": kind, "subject": subject}
        with self._writing() as rows:
            return Event.of(rows.insert(tables.events, values, payload))

    def tournament_state(self, tournament: str) -> str:
        """Return whether a tournament is running, failed or finished.

        Args:
            tournament: Its id.

        Returns:
            "running", "failed" or "finished".

        Raises:
            NotFoundError: If the ledger does not know the tournament.
        """
        with self._reading() as rows:
            if rows.one(tables.tournaments, {"tournament": tournament}) is None:
                raise NotFoundError(f"the ledger has no tournament {tournament!r}; look at its list of tournaments")
            return _state(rows, tournament)

    def tournaments(self) -> list[Tournament]:
        """Return all tournaments, oldest first."""
        return self._all(Tournament, tables.tournaments)

    def candidates(self) -> list[CandidateRecord]:
        """Return all candidates that were recorded, oldest first."""
        return self._all(CandidateRecord, tables.candidates)

    def entries(self, tournament: str | None = None) -> list[Entry]:
        """Return the candidates that entered a tournament, or all entries when it is None, in order of entry."""
        return self._all(Entry, tables.entries, tournament=tournament)

    def events(self, tournament: str | None = None, kind: str | None = None) -> list[Event]:
        """Return the events of a tournament and a kind, oldest first; None is any."""
        return self._all(Event, tables.events, tournament=tournament, kind=kind)

    def last_event(self) -> int:
        """Return the number of the newest event, 0 when there is none."""
        with self._reading() as rows:
            return rows.connection.scalar(select(func.max(tables.events.c.id))) or 0

    # What came of it

    def record_ranking(self, tournament: str, payload: Payload, round: str = "final") -> Ranking:
        """Record a utility ranking of a tournament's candidates.

        Args:
            tournament: Id of the tournament.
            payload: The ranking.
            round: Tells several rankings of one tournament apart.

        Returns:
            The row that stands for tournament and round.
        """
        return self._record(Ranking, tables.rankings, {"tournament": tournament, "round": round}, payload=payload)

    def record_selection(self, tournament: str, rule: str, payload: Payload) -> SelectionRecord:
        """Record which candidates a selection rule kept and evicted.

        Args:
            tournament: Id of the tournament.
            rule: Name of the rule.
            payload: What it decided.

        Returns:
            The row that stands for tournament and rule.
        """
        return self._record(
            SelectionRecord, tables.selections, {"tournament": tournament, "rule": rule}, payload=payload
        )

    def selected(self, tournament: str) -> bool:
        """Return whether the members of a tournament's challenger have been chosen."""
        return bool(self._all(SelectionRecord, tables.selections, tournament=tournament))

    def record_ensemble(self, tournament: str, name: str, version: int, payload: Payload = None) -> EnsembleRecord:
        """Record the challenger that a tournament built.

        Args:
            tournament: Id of the tournament.
            name: Name of the ensemble, its registered model.
            version: Its version there.
            payload: `members`: candidate ids.

        Returns:
            The row that stands for the tournament.

        Raises:
            StoreError: If the tournament is on record with another ensemble version.
        """
        fixed = {"name": name, "version": int(version)}
        return self._record(EnsembleRecord, tables.ensembles, {"tournament": tournament}, fixed, payload)

    def ensembles(self, tournament: str | None = None) -> list[EnsembleRecord]:
        """Return the challengers that were built and registered, oldest first."""
        return self._all(EnsembleRecord, tables.ensembles, tournament=tournament)

    def record_look(self, test_split: str, tournament: str, against: int = 0, payload: Payload = None) -> LookRecord:
        """Record a look at a test split, before it is taken, and number it; the same look again keeps its number.

        Args:
            test_split: Digest of the test pairs.
            tournament: Id of the tournament that looks.
            against: Sequence of the champion that it is judged against, 0 for none.
            payload: More about the look.

        Returns:
            The look; its `number` counts from 1 within the split.
        """
        natural = {"test_split": test_split, "tournament": tournament, "against": against}
        with self._writing() as rows:
            row = rows.one(tables.looks, natural)
            if row is None:
                same_split = tables.looks.c.test_split == test_split
                newest = rows.connection.scalar(select(func.max(tables.looks.c.number)).where(same_split)) or 0
                row = rows.insert(tables.looks, natural | {"number": newest + 1}, payload)
            return LookRecord.of(row)

    def looks(self, test_split: str | None = None) -> list[LookRecord]:
        """Return all looks at a test split, or at any when it is None, in the order in which they were recorded."""
        return self._all(LookRecord, tables.looks, test_split=test_split)

    def record_verdict(self, tournament: str, outcome: str, payload: Payload = None, against: int = 0) -> VerdictRecord:
        """Record a verdict on a tournament's challenger.

        Args:
            tournament: Id of the tournament.
            outcome: promote, refuse or not-evaluable.
            payload: What the verdict rests on, such as `reason` and `metrics`.
            against: Sequence of the champion that it was judged against, 0 for none.

        Returns:
            The row that stands for tournament and champion.

        Raises:
            StoreError: If another outcome is on record for them.
        """
        natural = {"tournament": tournament, "against": against}
        return self._record(VerdictRecord, tables.verdicts, natural, {"outcome": outcome}, payload)

    def verdicts(self, tournament: str | None = None) -> list[VerdictRecord]:
        """Return the verdicts of a tournament, or all when it is None, oldest first."""
        return self._all(VerdictRecord, tables.verdicts, tournament=tournament)

    def verdict(self, id: int) -> VerdictRecord:
        """Return a verdict by its number.

        Args:
            id: Number of its row.

        Returns:
            The verdict.

        Raises:
            NotFoundError: If there is none.
        """
        with self._reading() as rows:
            row = rows.one(tables.verdicts, {"id": id})
        if row is None:
            raise NotFoundError(f"the ledger has no verdict {id}; `tournament review list --all` shows those it has")
        return VerdictRecord.of(row)

    def record_decision(
        self, verdict: int, outcome: str, reviewer: str, reason: str, payload: Payload = None
    ) -> Decision:
        """Record what was decided on a verdict: approve, refuse or expired.

        A verdict is decided once: the same outcome again returns the decision that stands, another is refused. The
        decision names the manifest (`manifest_digest` in its payload) of the ensemble that the verdict is on.

        Args:
            verdict: Number of the verdict.
            outcome: approve, refuse or expired.
            reviewer: Who decided.
            reason: Why.
            payload: More about it, such as `via`, how the decision was given.

        Returns:
            The decision that stands.

        Raises:
            UsageError: If the outcome is no such word, or the reason or the reviewer is blank.
            BusyError: If the verdict was decided otherwise before.
        """
        if outcome not in ("approve", "refuse", "expired") or not reason.strip() or not reviewer.strip():
            raise UsageError(
                f"decision {outcome!r} of {reviewer!r} with reason {reason!r}; "
                "it is approve, refuse or expired, and needs a reviewer and a reason"
            )
        with self._writing() as rows:
            row = rows.one(tables.decisions, {"verdict": verdict})
            if row is not None and row["outcome"] != outcome:
                raise BusyError(
                    f"verdict {verdict} was decided already: {row['outcome']} by {row['reviewer']} at {row['at']}"
                )
            if row is None:
                values = {"verdict": verdict, "outcome": outcome, "reviewer": reviewer, "reason": reason}
                row = rows.insert(tables.decisions, values, naming_manifest(rows, verdict) | dict(payload or {}))
            return Decision.of(row)

    def decisions(self) -> list[Decision]:
        """Return all decisions, oldest first."""
        return self._all(Decision, tables.decisions)

    def record_approval(
        self, verdict: int, person: str, reviewer: str, reason: str, payload: Payload = None
    ) -> Approval:
        """Record a reviewer's yes to a verdict, which names the manifest; the same person's second one is ignored."""
        natural, fixed = {"verdict": verdict, "person": person}, {"reviewer": reviewer, "reason": reason}
        with self._writing() as rows:
            content = naming_manifest(rows, verdict) | dict(payload or {})
            return Approval.of(
                rows.one(tables.approvals, natural) or rows.insert(tables.approvals, natural | fixed, content)
            )

    def approvals(self, verdict: int | None = None) -> list[Approval]:
        """Return who said yes to a verdict (or any), oldest first."""
        return self._all(Approval, tables.approvals, verdict=verdict)

    def registrants(self, ensemble: EnsembleRecord) -> list[str]:
        """Return who registered what is new in a challenger, as it was recorded when each candidate arrived."""
        with self._reading() as rows:
            return registrants_of(rows, ensemble)

    def record_review(self, verdict: int, round: int, payload: Payload = None) -> Review:
        """Record that reviewers are asked about a verdict.

        Args:
            verdict: Number of the verdict.
            round: Which time this is, from 1.
            payload: `flow_run` (id of the run that waits for the answer, or None), `note`, `link`.

        Returns:
            The row that stands for verdict and round.
        """
        return self._record(Review, tables.reviews, {"verdict": verdict, "round": round}, payload=payload)

    def reviews(self, verdict: int | None = None) -> list[Review]:
        """Return the rounds in which reviewers were asked about a verdict (None: about any), oldest first."""
        return self._all(Review, tables.reviews, verdict=verdict)

    # Promotions: intent and steps

    def record_promotion(
        self,
        ensemble: str,
        kind: str,
        version: int,
        expected: int,
        reason: str,
        decision: int | None = None,
        payload: Payload = None,
    ) -> Promotion:
        """Append the intent to change the champion, if the ensemble's standing is still `expected`.

        A decision promotes once: called with it again, this returns the promotion that stands.

        Args:
            ensemble: Name of the ensemble.
            kind: promote, rollback, set or undo.
            version: The version that becomes champion.
            expected: `Standing.sequence` that the caller goes by, 0 when there was no change yet.
            reason: Why; it stands in the champion's history.
            decision: Number of the decision that it follows from, None for a change that needs none.
            payload: More about it, such as `steps` of a rollback.

        Returns:
            The new promotion, or the one that stands for `decision`.

        Raises:
            BusyError: if another change came first.
            PolicyError: if decision, verdict or policy do not allow it.
        """
        with self._writing() as rows:
            if decision is not None:
                row = rows.one(tables.promotions, {"decision": decision})
                if row is not None:
                    return self._counted(rows, ensemble, row["id"])
            standing = _standing(rows, ensemble)
            if standing.sequence != expected:
                current = f"version {standing.champion.version}" if standing.champion else "none"
                raise BusyError(
                    f"the champion of {ensemble} changed meanwhile (change {standing.sequence}, expected {expected}; "
                    f"it is {current} now); judge version {version} against it before it is promoted"
                )
            values = {"ensemble": ensemble, "sequence": expected + 1, "kind": kind, "version": int(version)}
            values |= {"decision": decision, "reason": reason}
            # Judged as every reader will; what does not count is not recorded, for the transaction is given up.
            return self._counted(rows, ensemble, rows.insert(tables.promotions, values, payload)["id"])

    def record_step(self, promotion: int, step: str, payload: Payload = None) -> None:
        """Append that a promotion's alias moved, or that the promotion is done.

        Args:
            promotion: Number of the promotion's row.
            step: One of `STEPS`.
            payload: More about it, such as `version`.

        Raises:
            UsageError: If `step` is none of `STEPS`.
        """
        if step not in STEPS:
            raise UsageError(f"promotion step {step!r}; it is one of {', '.join(STEPS)}")
        with self._writing() as rows:
            rows.append(tables.promotion_steps, {"promotion": promotion, "step": step}, {}, payload)

    def pending(self, ensemble: str) -> list[Promotion]:
        """Return promotions and rollbacks that are recorded and not marked as done, oldest first."""
        done = select(tables.promotion_steps.c.promotion).where(tables.promotion_steps.c.step == "done")
        query = select(tables.promotions).where(
            tables.promotions.c.ensemble == ensemble, tables.promotions.c.id.not_in(done)
        )
        with self._reading() as rows:
            opened = [Promotion.of(row) for row in rows.connection.execute(query.order_by("id")).mappings()]
            if not opened:
                return []
            counted = {one.promotion.id for one in judged_promotions(rows, ensemble) if not one.complaint}
            return [one for one in opened if one.id in counted]

    def standing(self, ensemble: str) -> Standing:
        """Return champion, previous champion and the number of the last change, as they follow from the promotions."""
        with self._reading() as rows:
            return _standing(rows, ensemble)

    def champion(self, ensemble: str) -> Promotion | None:
        """Return the promotion that installed the champion, or None."""
        return self.standing(ensemble).champion

    def history(self, ensemble: str) -> list[Chapter]:
        """Return all promotions and rollbacks, oldest first, each with decision, verdict and when it was done."""
        with self._reading() as rows:
            judged = judged_promotions(rows, ensemble)
            decisions = {row["id"]: Decision.of(row) for row in rows.all(tables.decisions)}
            verdicts = {row["id"]: VerdictRecord.of(row) for row in rows.all(tables.verdicts)}
            done = {row["promotion"]: row["at"] for row in rows.all(tables.promotion_steps, step="done")}
        chapters = []
        for one in judged:
            decision = decisions.get(one.promotion.decision or 0)
            verdict = verdicts.get(decision.verdict) if decision else None
            chapters.append(Chapter(one.promotion, decision, verdict, done.get(one.promotion.id), one.complaint))
        return chapters

    def export(self) -> dict[str, list[dict[str, Any]]]:
        """Return every row of every table, ready for JSON.

        Returns:
            Table name -> rows in order of appending, a dict from column to value each; moments are ISO text.
        """
        with self._reading() as rows:
            return {
                table.name: [
                    {key: value.isoformat() if isinstance(value, dt.datetime) else value for key, value in row.items()}
                    for row in rows.all(table)
                ]
                for table in tables.metadata.sorted_tables
            }

    # How it is done

    @contextmanager
    def _reading(self) -> Iterator[Rows]:
        with self._database.reading() as connection:
            yield Rows(connection)

    @contextmanager
    def _writing(self) -> Iterator[Rows]:
        with self._database.writing() as connection:
            yield Rows(connection, self.who)

    reading, writing = _reading, _writing  # for the modules of registry/ that have tables of their own

    def _counted(self, rows: Rows, ensemble: str, id: int) -> Promotion:
        judged = next(one for one in judged_promotions(rows, ensemble) if one.promotion.id == id)
        if judged.complaint:
            raise PolicyError(str(judged))
        return judged.promotion

    def _record(
        self,
        kind: type[SomeRecord],
        table: Table,
        natural: Mapping[str, Any],
        fixed: Mapping[str, Any] | None = None,
        payload: Payload = None,
    ) -> SomeRecord:
        with self._writing() as rows:
            return kind.of(rows.append(table, natural, fixed, payload))

    def _all(self, record: type[SomeRecord], table: Table, /, **equal: Any) -> list[SomeRecord]:
        with self._reading() as rows:
            return [record.of(row) for row in rows.all(table, **equal)]


def _state(rows: Rows, tournament: str) -> str:
    kinds = [row["kind"] for row in rows.all(tables.events, tournament=tournament)]
    if "finished" in kinds:
        return "finished"
    turns = [kind for kind in kinds if kind in ("failed", "continued")]
    return "failed" if turns and turns[-1] == "failed" else "running"


def _standing(rows: Rows, ensemble: str) -> Standing:
    return replay(ensemble, judged_promotions(rows, ensemble))
