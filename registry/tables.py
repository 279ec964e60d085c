"""The ledger's tables. Rows are appended and never changed, which triggers in the database enforce."""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect

# Raise it with a revision in registry/migrations/. Columns that stand are never altered: the chain has their digests.
SCHEMA_VERSION = 4

metadata = MetaData()


class Instant(TypeDecorator[dt.datetime]):
    """A moment in UTC: SQLite keeps no time zone, so it is put back on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: Dialect) -> dt.datetime | None:
        """Convert an aware datetime to a naive one in UTC for SQLite; other databases keep the time zone."""
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(dt.UTC).replace(tzinfo=None)

    def process_result_value(self, value: dt.datetime | None, dialect: Dialect) -> dt.datetime | None:
        """Return an aware datetime in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)


def _table(name: str, *content: Any) -> Table:
    """Return a table with what all have: id in order of appending, when (UTC), who (user@host), payload (JSON)."""
    return Table(
        name,
        metadata,
        Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
        *content,
        Column("at", Instant, nullable=False),
        Column("who", String, nullable=False),
        Column("payload", JSON().with_variant(JSONB, "postgresql"), nullable=False),
    )


def _word(name: str, *more: Any, nullable: bool = False) -> Column[str]:
    return Column(name, String, *more, nullable=nullable)


def _tournament(nullable: bool = False) -> Column[str]:
    return _word("tournament", ForeignKey("tournaments.tournament"), nullable=nullable)


schema_versions = _table("schema_versions", Column("version", Integer, nullable=False, unique=True))

data_versions = _table("data_versions", Column("digest", String, nullable=False, unique=True))

candidates = _table(
    "candidates",
    Column("candidate", String, nullable=False, unique=True),  # name/version
    _word("digest"),
    _word("family"),
)

tournaments = _table(
    "tournaments",
    Column("tournament", String, nullable=False, unique=True),
    _word("data_version", ForeignKey("data_versions.digest")),
)

entries = _table(
    "entries",
    _tournament(),
    _word("candidate", ForeignKey("candidates.candidate")),
    _word("role"),  # newcomer, member or bench
    UniqueConstraint("tournament", "candidate"),
)

events = _table(
    "events",
    _tournament(nullable=True),
    _word("kind"),
    _word("subject"),  # a stage, a candidate; "" when it is the tournament itself
)
Index(
    "events_one_end",
    events.c.tournament,
    unique=True,
    sqlite_where=text("kind = 'finished'"),
    postgresql_where=text("kind = 'finished'"),
)
Index("events_by_tournament", events.c.tournament, events.c.kind)

scores = _table(
    "scores",
    _word("candidate", ForeignKey("candidates.candidate")),
    _word("data_version", ForeignKey("data_versions.digest")),
    _word("recipe"),
    _word("digest"),
    UniqueConstraint("candidate", "data_version", "recipe", "digest"),
)

rankings = _table("rankings", _tournament(), _word("round"), UniqueConstraint("tournament", "round"))

selections = _table("selections", _tournament(), _word("rule"), UniqueConstraint("tournament", "rule"))

ensembles = _table(
    "ensembles",
    _tournament(),
    _word("name"),
    Column("version", Integer, nullable=False),
    UniqueConstraint("tournament"),
    UniqueConstraint("name", "version"),
)

looks = _table(
    "looks",
    _word("test_split"),
    Column("number", Integer, nullable=False),  # 1, 2, 3 ... within a test split
    _tournament(),
    Column("against", Integer, nullable=False),  # sequence of the champion judged against, 0 for none
    UniqueConstraint("test_split", "number"),
    UniqueConstraint("test_split", "tournament", "against"),
)

verdicts = _table(
    "verdicts",
    _tournament(),
    Column("against", Integer, nullable=False),
    _word("outcome"),  # promote, refuse or not-evaluable
    UniqueConstraint("tournament", "against"),
)

decisions = _table(
    "decisions",
    Column("verdict", ForeignKey("verdicts.id"), nullable=False, unique=True),
    _word("outcome"),  # approve, refuse or expired
    _word("reviewer"),
    _word("reason"),
)

# Each reviewer's yes; the decision is recorded when as many as the policy asks for have said it.
approvals = _table(
    "approvals",
    Column("verdict", ForeignKey("verdicts.id"), nullable=False),
    _word("person"),  # the reviewer's name as names are compared
    _word("reviewer"),
    _word("reason"),
    UniqueConstraint("verdict", "person"),
)

reviews = _table(
    "reviews",
    Column("verdict", ForeignKey("verdicts.id"), nullable=False),
    Column("round", Integer, nullable=False),  # 1, 2, 3 ... each time the verdict is laid before the reviewers
    UniqueConstraint("verdict", "round"),
)

# `sequence` makes the promotions of an ensemble one chain: two that follow the same one cannot both be appended.
promotions = _table(
    "promotions",
    _word("ensemble"),
    Column("sequence", Integer, nullable=False),
    _word("kind"),  # promote, rollback, set or undo
    Column("version", Integer, nullable=False),
    Column("decision", ForeignKey("decisions.id"), nullable=True, unique=True),
    _word("reason"),
    UniqueConstraint("ensemble", "sequence"),
)

# What governs decisions, in versions; payload: "policy", and "after_promotion": the last promotion made before it.
policies = _table("policies", Column("version", Integer, nullable=False, unique=True), _word("reason"))

# The secret of each reviewer's authenticator app; the newest one counts. Payload: "secret", None when it is withdrawn.
enrolments = _table("enrolments", _word("person"))

# Time steps whose code was accepted: no code is accepted twice.
used_codes = _table(
    "used_codes", _word("person"), Column("step", Integer, nullable=False), UniqueConstraint("person", "step")
)

promotion_steps = _table(
    "promotion_steps",
    Column("promotion", ForeignKey("promotions.id"), nullable=False),
    _word("step"),  # champion_moved, previous_moved, done
    UniqueConstraint("promotion", "step"),
)

# Once for each content of a version's spec tag: what is corrected gets a new chance, what is queued enters once.
arrivals = _table(
    "arrivals",
    _word("candidate"),  # name/version; not of `candidates`: those refused are not in it
    _word("digest"),  # of the tag's content
    _word("outcome"),  # queued, refused, or tried (before it was noticed)
    UniqueConstraint("candidate", "digest"),
)
Index(
    "arrivals_enter_once",
    arrivals.c.candidate,
    unique=True,
    sqlite_where=text("outcome <> 'refused'"),
    postgresql_where=text("outcome <> 'refused'"),
)

dispatches = _table("dispatches", Column("dispatch", String, nullable=False, unique=True), _word("device"))

dispatched = _table(
    "dispatched",
    _word("dispatch", ForeignKey("dispatches.dispatch")),
    Column("arrival", ForeignKey("arrivals.id"), nullable=False, unique=True),
)

attempts = _table(
    "attempts",
    _word("dispatch", ForeignKey("dispatches.dispatch")),
    Column("number", Integer, nullable=False),  # 1, 2, 3 ... within a dispatch
    UniqueConstraint("dispatch", "number"),
)

attempt_steps = _table(
    "attempt_steps",
    Column("attempt", ForeignKey("attempts.id"), nullable=False),
    _word("step"),  # started, ended
    _word("outcome"),  # started: the flow run; ended: completed, failed, lost, given_up
    UniqueConstraint("attempt", "step"),
)

# One entry for each row of the other tables, written with it; what stands in it is described in registry/links.py.
chain = _table(
    "chain",
    _word("entry_table"),
    Column("entry_row", BigInteger, nullable=False),
    _word("digest"),
    _word("previous"),
    _word("hash"),
    UniqueConstraint("entry_table", "entry_row"),
    UniqueConstraint("previous"),
)

RECORDED = tuple(table for table in metadata.sorted_tables if table is not chain)  # in order of their foreign keys
