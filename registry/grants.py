"""Least privilege on PostgreSQL: what the roles of services may do with the ledger's tables.

The owner of the tables migrates them, changes the policy, enrols reviewers and repairs triggers. Workers and reviewers
append and read: they cannot change or remove anything, or touch a trigger, which only the owner can. A reviewer's yes
is written by the reviewer's role alone, where their codes are checked. A scorer reads.
"""

from __future__ import annotations

from typing import Literal

from sqlalchemy import text

from esci_tournament.registry import tables
from esci_tournament.registry.errors import UsageError
from esci_tournament.registry.ledger import Ledger

Service = Literal["worker", "reviewer", "scorer"]

_SECRET = {"enrolments", "used_codes"}  # whoever reads them can make codes
_OPERATORS = {"policies", "enrolments", "schema_versions"}
# Service -> tables that it does not read, and tables that it does not append to
_LACKS: dict[Service, tuple[set[str], set[str]]] = {
    "worker": (_SECRET, _SECRET | _OPERATORS | {"approvals"}),
    "reviewer": (set(), _OPERATORS),
    "scorer": (_SECRET, {table.name for table in tables.metadata.sorted_tables}),
}


def statements(service: Service, role: str) -> list[str]:
    """Return the SQL that gives a role what a service needs, and takes away whatever else it had.

    It is run by the owner in the ledger's database, and again after a migration.

    Args:
        service: "worker", "reviewer" (also for the watcher) or "scorer".
        role: Name of a role that exists.

    Example:
        >>> print(statements("scorer", "ledger_scorer")[-1][:28])
        GRANT SELECT ON approvals, a
    """
    quoted = '"' + role.replace('"', '""') + '"'
    names = sorted(table.name for table in tables.metadata.sorted_tables)
    unread, unwritten = _LACKS[service]
    read, written = ([name for name in names if name not in lacking] for lacking in (unread, unwritten))
    done = [
        f"REVOKE ALL ON {', '.join(names)} FROM PUBLIC, {quoted}",
        f"REVOKE ALL ON SEQUENCE {_sequences(names)} FROM PUBLIC, {quoted}",
        f"GRANT SELECT ON {', '.join(read)} TO {quoted}",
    ]
    if written:
        done.append(f"GRANT INSERT ON {', '.join(written)} TO {quoted}")
        done.append(f"GRANT USAGE ON SEQUENCE {_sequences(written)} TO {quoted}")
    return done


def grant(address: str, service: Service, role: str) -> list[str]:
    """Migrate a ledger and give a role of its server what a service needs.

    Args:
        address: The ledger's address, of the role that owns its tables.
        service: "worker", "reviewer" or "scorer".
        role: Name of the role.

    Returns:
        The statements that were run.

    Raises:
        UsageError: If the ledger is not in PostgreSQL, or the role is the owner of the tables, who may do anything.
        StoreError: If the role does not exist, or this one is not the owner.
    """
    done = statements(service, role)
    with Ledger.open(address) as ledger, ledger.writing() as rows:
        connection = rows.connection
        if connection.dialect.name != "postgresql":
            raise UsageError("the ledger is in SQLite, which has no roles: guard its file and folder instead")
        mighty = connection.scalar(
            text(
                "SELECT EXISTS (SELECT 1 FROM pg_roles r WHERE r.rolname = :role AND (r.rolsuper OR EXISTS (SELECT 1 "
                "FROM pg_tables t WHERE t.schemaname = current_schema() AND pg_has_role(r.rolname, t.tableowner, "
                "'MEMBER'))))"
            ),
            {"role": role},
        )
        if mighty:
            raise UsageError(
                f"{role} is a superuser or owns tables here, so it may do anything: give the service a role of its own"
            )
        for statement in done:
            connection.exec_driver_sql(statement.replace("%", "%%"))
    return done


def _sequences(names: list[str]) -> str:
    return ", ".join(f"{name}_id_seq" for name in names)
