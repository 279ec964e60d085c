"""Schema 3: the policy, reviewers' approvals, and the secrets and codes of their authenticator apps."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

from esci_tournament.registry.migrations.columns import count, create, reference, word

revision = "3"
down_revision = "2"


def upgrade(op: Operations) -> None:
    """Create the tables."""
    create(
        op,
        "approvals",
        reference("verdict", "verdicts.id"),
        word("person"),
        word("reviewer"),
        word("reason"),
        sa.UniqueConstraint("verdict", "person"),
    )
    create(op, "policies", count("version", unique=True), word("reason"))
    create(op, "enrolments", word("person"))
    create(op, "used_codes", word("person"), count("step"), sa.UniqueConstraint("person", "step"))
