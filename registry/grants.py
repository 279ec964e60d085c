"""Least privilege on PostgreSQL: what the roles of services may do with the ledger's tables.

The owner of the tables migrates them and repairs triggers. A worker appends and reads: it cannot change or remove
anything, or touch a trigger, which only the owner can. A scorer reads, and not the secrets of reviewers.
"""

from __future__ import annotations

from typing import Literal

from sqlalchemy import text

from esci_tournament.registry import tables
from esci_tournament.registry.errors import UsageError
from esci_tournament.registry.ledger import Ledger

Service = Literal["worker", "scorer"]

SECRET = ("enrolments", "used_codes")  # tables that a scorer does not read


def statements(service: Service, role: str) -> list[str]:
    """Return the SQL that gives a role what a service needs, and takes away whatever else it had.

    It is run by the owner in the ledger's database, and again after a migration.

    Args:
        service: "worker" (also for the reviewer and the watcher) or "scorer".
        role: Name of a role that exists.

    Example:
        >>> print(statements("scorer", "ledger_scorer")[-1][:28])
        GRANT SELECT ON approvals, a
    """
    quoted = '"' + role.replace('"', '""') + '"'
    names = sorted(table.name for table in tables.metadata.sorted_tables)
    every, sequences = ", ".join(names), ", ".join(f"{name}_id_seq" for name in names)
    taken = [
        f"REVOKE ALL ON {every} FROM PUBLIC, {quoted}",
        f"REVOKE ALL ON SEQUENCE {sequences} FROM PUBLIC, {quoted}",
    ]
    if service == "worker":
        return [
            *taken,
            f"GRANT USAGE ON SEQUENCE {sequences} TO {quoted}",
            f"GRANT SELECT, INSERT ON {every} TO {quoted}",
        ]
    return [*taken, f"GRANT SELECT ON {', '.join(name for name in names if name not in SECRET)} TO {quoted}"]


def grant(address: str, service: Service, role: str) -> list[str]:
    """Migrate a ledger and give a role of its server what a service needs.

    Args:
        address: The ledger's address, of the role that owns its tables.
        service: "worker" or "scorer".
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
