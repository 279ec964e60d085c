"""Schema 4: the hash chain. The entries of rows that stand are made by `Database.create_schema` afterwards."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

from esci_tournament.registry.migrations.columns import create, word

revision = "4"
down_revision = "3"


def upgrade(op: Operations) -> None:
    """Create the table."""
    create(
        op,
        "chain",
        word("entry_table"),
        sa.Column("entry_row", sa.BigInteger, nullable=False),
        word("digest"),
        word("previous"),
        word("hash"),
        sa.UniqueConstraint("entry_table", "entry_row"),
        sa.UniqueConstraint("previous"),
    )
