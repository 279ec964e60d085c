"""Schema 2: reviews, and the queue of candidates that arrive by themselves."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

from esci_tournament.registry.migrations.columns import count, create, reference, word

revision = "2"
down_revision = "1"


def upgrade(op: Operations) -> None:
    """Create the tables."""
    create(op, "reviews", reference("verdict", "verdicts.id"), count("round"), sa.UniqueConstraint("verdict", "round"))
    create(
        op,
        "arrivals",
        word("candidate"),
        word("digest"),
        word("outcome"),
        sa.UniqueConstraint("candidate", "digest"),
    )
    entered = sa.text("outcome <> 'refused'")
    op.create_index(
        "arrivals_enter_once", "arrivals", ["candidate"], unique=True, sqlite_where=entered, postgresql_where=entered
    )
    create(op, "dispatches", word("dispatch", unique=True), word("device"))
    arrival = reference("arrival", "arrivals.id", unique=True)
    create(op, "dispatched", word("dispatch", "dispatches.dispatch"), arrival)
    create(
        op,
        "attempts",
        word("dispatch", "dispatches.dispatch"),
        count("number"),
        sa.UniqueConstraint("dispatch", "number"),
    )
    create(
        op,
        "attempt_steps",
        reference("attempt", "attempts.id"),
        word("step"),
        word("outcome"),
        sa.UniqueConstraint("attempt", "step"),
    )
