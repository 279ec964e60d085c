"""Schema 1: tournaments, what they are made of and what they decide."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

from esci_tournament.registry.migrations.columns import count, create, reference, word

revision = "1"
down_revision = None


def upgrade(op: Operations) -> None:
    """Create the tables."""
    create(op, "schema_versions", count("version", unique=True))
    create(op, "data_versions", word("digest", unique=True))
    create(op, "candidates", word("candidate", unique=True), word("digest"), word("family"))
    create(op, "tournaments", word("tournament", unique=True), word("data_version", "data_versions.digest"))
    create(
        op,
        "entries",
        word("tournament", "tournaments.tournament"),
        word("candidate", "candidates.candidate"),
        word("role"),
        sa.UniqueConstraint("tournament", "candidate"),
    )
    create(op, "events", word("tournament", "tournaments.tournament", nullable=True), word("kind"), word("subject"))
    finished = sa.text("kind = 'finished'")
    op.create_index(
        "events_one_end", "events", ["tournament"], unique=True, sqlite_where=finished, postgresql_where=finished
    )
    op.create_index("events_by_tournament", "events", ["tournament", "kind"])
    create(
        op,
        "scores",
        word("candidate", "candidates.candidate"),
        word("data_version", "data_versions.digest"),
        word("recipe"),
        word("digest"),
        sa.UniqueConstraint("candidate", "data_version", "recipe", "digest"),
    )
    _create_what_tournaments_decide(op)


def _create_what_tournaments_decide(op: Operations) -> None:
    for name, column in (("rankings", "round"), ("selections", "rule")):
        unique = sa.UniqueConstraint("tournament", column)
        create(op, name, word("tournament", "tournaments.tournament"), word(column), unique)
    create(
        op,
        "ensembles",
        word("tournament", "tournaments.tournament"),
        word("name"),
        count("version"),
        sa.UniqueConstraint("tournament"),
        sa.UniqueConstraint("name", "version"),
    )
    create(
        op,
        "looks",
        word("test_split"),
        count("number"),
        word("tournament", "tournaments.tournament"),
        count("against"),
        sa.UniqueConstraint("test_split", "number"),
        sa.UniqueConstraint("test_split", "tournament", "against"),
    )
    create(
        op,
        "verdicts",
        word("tournament", "tournaments.tournament"),
        count("against"),
        word("outcome"),
        sa.UniqueConstraint("tournament", "against"),
    )
    verdict = reference("verdict", "verdicts.id", unique=True)
    create(op, "decisions", verdict, word("outcome"), word("reviewer"), word("reason"))
    create(
        op,
        "promotions",
        word("ensemble"),
        count("sequence"),
        word("kind"),
        count("version"),
        reference("decision", "decisions.id", nullable=True, unique=True),
        word("reason"),
        sa.UniqueConstraint("ensemble", "sequence"),
    )
    promotion = reference("promotion", "promotions.id")
    create(op, "promotion_steps", promotion, word("step"), sa.UniqueConstraint("promotion", "step"))
