"""What the ledger returns: one frozen record for each row, and the standing that follows from them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self


@dataclass(frozen=True)
class Record:
    """What every row has.

    Attributes:
        id: Number of the row, in order of appending within its table.
        at: When it was appended (UTC).
        who: Who appended it, user@host.
        payload: The rest, as JSON holds it.
    """

    id: int
    at: dt.datetime
    who: str
    payload: dict[str, Any]

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> Self:
        """Return the record of a row.

        Args:
            row: Column name -> value; it has every field of the record.

        Returns:
            The record; columns that are no fields are left out.
        """
        return cls(**{field.name: row[field.name] for field in fields(cls)})


@dataclass(frozen=True)
class SchemaRecord(Record):
    """A version of the ledger's schema, from the moment it was created or migrated to it on."""

    version: int


@dataclass(frozen=True)
class DataVersion(Record):
    """A data version that was validated, under the digest of its content."""

    digest: str


@dataclass(frozen=True)
class CandidateRecord(Record):
    """A candidate.

    Attributes:
        candidate: Its id, `name/version`.
        digest: Digest of its spec.
        family: Its family.
    """

    candidate: str
    digest: str
    family: str


@dataclass(frozen=True)
class Tournament(Record):
    """A tournament that was started.

    Attributes:
        tournament: Its id.
        data_version: Digest of its data.
    """

    tournament: str
    data_version: str


@dataclass(frozen=True)
class Entry(Record):
    """A candidate that entered a tournament.

    Attributes:
        tournament: Id of the tournament.
        candidate: Id of the candidate.
        role: newcomer, member or bench.
    """

    tournament: str
    candidate: str
    role: str


@dataclass(frozen=True)
class Event(Record):
    """Something that happened.

    Attributes:
        tournament: Id of the tournament it belongs to, None for none.
        kind: What happened, in one word.
        subject: What it happened to, such as a candidate id; "" for the tournament itself.
    """

    tournament: str | None
    kind: str
    subject: str


@dataclass(frozen=True)
class ScoreRecord(Record):
    """Scores that were stored.

    Attributes:
        candidate: Id of the candidate.
        data_version: Digest of the data.
        recipe: Digest of all else that the scores follow from.
        digest: Digest of their content.
    """

    candidate: str
    data_version: str
    recipe: str
    digest: str


@dataclass(frozen=True)
class Ranking(Record):
    """A utility ranking of a tournament's candidates, in the payload; `round` tells several of one tournament apart."""

    tournament: str
    round: str


@dataclass(frozen=True)
class SelectionRecord(Record):
    """What a selection rule kept and evicted in a tournament, in the payload."""

    tournament: str
    rule: str


@dataclass(frozen=True)
class EnsembleRecord(Record):
    """The challenger that a tournament built.

    Attributes:
        tournament: Id of the tournament.
        name: Name of the ensemble, its registered model.
        version: Its version there. The payload has `members`: candidate ids, and `manifest`: its files.
    """

    tournament: str
    name: str
    version: int

    @property
    def manifest_digest(self) -> str:
        """Digest of its manifest, "" for one that was registered before manifests were kept."""
        return str(self.payload.get("manifest_digest") or "")


@dataclass(frozen=True)
class LookRecord(Record):
    """One look at a test split.

    Attributes:
        test_split: Digest of the test pairs.
        number: Counts from 1 within the split.
        tournament: Id of the tournament that looked.
        against: Sequence of the champion that it was judged against, 0 for none.
    """

    test_split: str
    number: int
    tournament: str
    against: int


@dataclass(frozen=True)
class VerdictRecord(Record):
    """A verdict on a tournament's challenger.

    Attributes:
        tournament: Id of the tournament.
        against: Sequence of the champion that it was judged against, 0 for none.
        outcome: promote, refuse or not-evaluable.
    """

    tournament: str
    against: int
    outcome: str


@dataclass(frozen=True)
class Decision(Record):
    """What was decided on a verdict.

    Attributes:
        verdict: Number of the verdict.
        outcome: approve, refuse or expired.
        reviewer: Who decided.
        reason: Why.
    """

    verdict: int
    outcome: str
    reviewer: str
    reason: str


@dataclass(frozen=True)
class Approval(Record):
    """One reviewer's yes to a verdict; payload: "via", "mark", and "proof" of who said it: process, code or word."""

    verdict: int
    person: str
    reviewer: str
    reason: str


@dataclass(frozen=True)
class PolicyRecord(Record):
    """A version of the policy; payload: "policy" (its values), "after_promotion" (id), "changed" (names)."""

    version: int
    reason: str


@dataclass(frozen=True)
class Review(Record):
    """A round in which reviewers are asked about a verdict; payload: `flow_run` (id or None), `note`, `link`.

    Attributes:
        verdict: Number of the verdict.
        round: Which time this is, from 1.
    """

    verdict: int
    round: int


@dataclass(frozen=True)
class Arrival(Record):
    """A version as it was noticed; payload: `complaint` if refused, `entered` (when it was registered, ISO).

    Attributes:
        candidate: Its id, `name/version`.
        digest: Digest of the content of its spec tag.
        outcome: queued, refused or tried.
    """

    candidate: str
    digest: str
    outcome: str


@dataclass(frozen=True)
class Promotion(Record):
    """The intent to make a version champion; payload of a rollback over several champions: `steps`.

    Attributes:
        ensemble: Name of the ensemble.
        sequence: Number of this change of its champion, from 1.
        kind: promote, rollback, set (any version that was approved) or undo (of the last change).
        version: The version that becomes champion.
        decision: Number of the decision that it follows from; None for a rollback, an undo, and a set to a version
            that was champion before.
        reason: Why.
    """

    ensemble: str
    sequence: int
    kind: str
    version: int
    decision: int | None
    reason: str


@dataclass(frozen=True)
class Standing:
    """The champion of an ensemble according to the ledger.

    Attributes:
        ensemble: Name of the ensemble.
        sequence: Number of the newest change, 0 when there was none; compare-and-set goes by it.
        champion: The promotion (or set) that installed the version which serves now.
        previous: The one that a rollback would go back to.
        invalid: Changes that do not count.
        change: The last change that counts, which may be a rollback; None when there was none.
        replaced: The version that was champion before `change`, None for none.
        earlier: Those that a rollback can go back to, the nearest first; the first one is `previous`.
        undone: The one that an undo of `change` would make champion again.
    """

    ensemble: str
    sequence: int
    champion: Promotion | None
    previous: Promotion | None
    invalid: tuple[Judged, ...] = ()
    change: Promotion | None = None
    replaced: int | None = None
    earlier: tuple[Promotion, ...] = ()
    undone: Promotion | None = None

    @property
    def since(self) -> dt.datetime | None:
        """Since when the champion serves without a break (UTC), None when there is none."""
        return self.change.at if self.change and self.champion else None


@dataclass(frozen=True)
class Judged:
    """A promotion or rollback, and why it does not count; `complaint` is "" when it does."""

    promotion: Promotion
    complaint: str

    def __str__(self) -> str:
        one = self.promotion
        return f"{one.kind} {one.sequence} to version {one.version} in the ledger does not count: {self.complaint}"


@dataclass(frozen=True)
class Chapter:
    """One line of the champion's history.

    Attributes:
        promotion: The promotion, rollback, set or undo.
        decision: What it followed from, None without one.
        verdict: What was decided on, None without a decision.
        done_at: When the aliases had followed (UTC), None before that.
        complaint: Why it does not count, "" when it does.
    """

    promotion: Promotion
    decision: Decision | None
    verdict: VerdictRecord | None
    done_at: dt.datetime | None
    complaint: str = ""
