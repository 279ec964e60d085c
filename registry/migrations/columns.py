"""What the tables of all revisions have. Released revisions rest on it, so nothing in here is ever changed."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations
from sqlalchemy.dialects.postgresql import JSONB


def number() -> sa.types.TypeEngine[int]:
    """Return the type of a row's id, and of columns that refer to one."""
    return sa.BigInteger().with_variant(sa.Integer, "sqlite")


def create(op: Operations, name: str, *content: Any) -> None:
    """Create a table with `id`, its own columns and constraints, `at`, `who` and `payload`."""
    op.create_table(
        name,
        sa.Column("id", number(), primary_key=True),
        *content,
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("who", sa.String, nullable=False),
        sa.Column("payload", sa.JSON().with_variant(JSONB, "postgresql"), nullable=False),
    )


def word(name: str, refers_to: str | None = None, *, nullable: bool = False, unique: bool = False) -> sa.Column[str]:
    """Return a column of text; `refers_to` is the `table.column` of a foreign key."""
    keys = [sa.ForeignKey(refers_to)] if refers_to else []
    return sa.Column(name, sa.String, *keys, nullable=nullable, unique=unique)


def count(name: str, *, unique: bool = False) -> sa.Column[int]:
    """Return a column of an integer."""
    return sa.Column(name, sa.Integer, nullable=False, unique=unique)


def reference(name: str, refers_to: str, *, nullable: bool = False, unique: bool = False) -> sa.Column[int]:
    """Return a column that refers to the id of a row of another table."""
    return sa.Column(name, number(), sa.ForeignKey(refers_to), nullable=nullable, unique=unique)
