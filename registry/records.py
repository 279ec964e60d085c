"""What the ledger gives back: one frozen record for each row, and the standing that follows from them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self


@dataclass(frozen=True)
class Record:
    """What every row has: its number in order of appending, when (UTC), who (user@host), and the rest as JSON."""

    id: int
    at: dt.datetime
    who: str
    payload: dict[str, Any]

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> Self:
        return cls(**{field.name: row[field.name] for field in fields(cls)})


@dataclass(frozen=True)
class DataVersion(Record):
    digest: str


@dataclass(frozen=True)
class CandidateRecord(Record):
    candidate: str  # name/version
    digest: str
    family: str


@dataclass(frozen=True)
class Tournament(Record):
    tournament: str
    data_version: str


@dataclass(frozen=True)
class Entry(Record):
    tournament: str
    candidate: str
    role: str  # newcomer, member or bench


@dataclass(frozen=True)
class Event(Record):
    tournament: str | None
    kind: str
    subject: str


@dataclass(frozen=True)
class ScoreRecord(Record):
    candidate: str
    data_version: str
    recipe: str
    digest: str


@dataclass(frozen=True)
class Ranking(Record):
    tournament: str
    round: str


@dataclass(frozen=True)
class SelectionRecord(Record):
    tournament: str
    rule: str


@dataclass(frozen=True)
class EnsembleRecord(Record):
    tournament: str
    name: str
    version: int


@dataclass(frozen=True)
class LookRecord(Record):
    """One look at a test split; `number` counts from 1 within the split."""

    test_split: str
    number: int
    tournament: str
    against: int


@dataclass(frozen=True)
class VerdictRecord(Record):
    """A verdict; `against` is the sequence of the champion it was judged against, 0 for none."""

    tournament: str
    against: int
    outcome: str


@dataclass(frozen=True)
class Decision(Record):
    verdict: int
    outcome: str  # approve, refuse or expired
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
    """A verdict laid before the reviewers for the `round`-th time; payload: "flow_run" (id or None), "note"."""

    verdict: int
    round: int


@dataclass(frozen=True)
class Arrival(Record):
    """A version as it was noticed; payload: "complaint" if refused, "entered" (when it was registered, ISO)."""

    candidate: str
    digest: str  # of the content of its spec tag
    outcome: str  # queued, refused, tried


@dataclass(frozen=True)
class Promotion(Record):
    """The intent to make `version` champion: the `sequence`-th of its ensemble, by promotion or by rollback."""

    ensemble: str
    sequence: int
    kind: str  # promote or rollback
    version: int
    decision: int | None
    reason: str


@dataclass(frozen=True)
class Standing:
    """Who is champion of an ensemble by the ledger.

    Attributes:
        sequence: number of the newest promotion or rollback, 0 when there was none; compare-and-set goes by it.
        champion: the promotion that installed the version which serves now.
        previous: the one that a rollback would go back to.
        invalid: promotions and rollbacks that do not count.
    """

    ensemble: str
    sequence: int
    champion: Promotion | None
    previous: Promotion | None
    invalid: tuple[Judged, ...] = ()


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
    """One line of the champion's history: the promotion, what led to it, and when the alias followed."""

    promotion: Promotion
    decision: Decision | None
    verdict: VerdictRecord | None
    done_at: dt.datetime | None  # None while the alias has not moved yet
    complaint: str = ""  # why it does not count
