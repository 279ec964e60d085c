"""Migrations of the ledger's schema, by alembic: one revision for each released schema, named by its number.

They run on a connection of ours, so there is no alembic.ini and no env.py. Revisions are given `op` as an argument:
alembic's global of that name is one for all threads of a process, and MLflow uses it too.

To change the schema: add a revision to `versions/`, raise `tables.SCHEMA_VERSION`, and add the DDL of the schema before
to `tests/registry/schemas/`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Constraint, Index

from esci_tournament.registry import tables
from esci_tournament.registry.errors import ChainError


def upgrade(connection: Connection, found: int) -> None:
    """Bring the tables of a ledger to the newest schema.

    Args:
        connection: A connection in a transaction beside which nobody else writes; all of it is done in there.
        found: The schema that the ledger has, 0 for none, by `schema_versions`. A ledger from before alembic was used
            has no more than that; alembic's own table is set to it.

    Raises:
        ChainError: If alembic's own table says that the ledger has another schema.
    """
    scripts = ScriptDirectory(str(Path(__file__).parent))
    context = MigrationContext.configure(
        connection, opts={"fn": lambda heads, _context: scripts._upgrade_revs("head", heads)}
    )
    current = context.get_current_revision()
    if current is not None and current != str(found):
        raise ChainError(
            f"the ledger's table schema_versions says that it has schema {found}, and alembic_version that it has "
            f"{current}: somebody wrote to one of them. Restore the last backup that verifies"
        )
    if found:
        context.stamp(scripts, str(found))
    context.run_migrations(op=Operations(context))


def lacking(connection: Connection) -> list[str]:
    """Return which columns, indexes and constraints of the newest schema a ledger does not have, a sentence each.

    What it has beyond them, such as an index of the operator's, is not asked.

    Args:
        connection: A connection in a transaction that reads.
    """
    context = MigrationContext.configure(connection)
    found = []
    for difference in compare_metadata(context, tables.metadata):
        kind, *what = difference if isinstance(difference, tuple) else difference[0]
        if str(kind).startswith("add_"):
            thing: Any = what[0] if isinstance(what[0], Constraint | Index) else what[-1]
            columns = ", ".join(column.name for column in getattr(thing, "columns", ())) or thing.name
            found.append(f"the table {thing.table.name} lacks {str(kind).removeprefix('add_')} ({columns})")
    return found


def newest() -> int:
    """Return the number of the newest schema that there is a revision for."""
    return int(ScriptDirectory(str(Path(__file__).parent)).get_current_head() or 0)
