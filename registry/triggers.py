"""The triggers that keep the ledger's rows as they were appended: put in place, compared with what is there, restored.

SQLite keeps the text of a trigger. PostgreSQL keeps what it does, when, and whether it is switched on; all of it is
compared. Triggers of others on the ledger's tables, and PostgreSQL's rewrite rules, are faults too: they could change
what is appended.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, Table, UniqueConstraint, text

from esci_tournament.registry import tables

_BODY = " BEGIN RAISE EXCEPTION 'the ledger is append-only: %', TG_TABLE_NAME; END "
_FUNCTION = "ledger_is_append_only"
# PostgreSQL's pg_trigger.tgtype: 1 row, 2 before, 8 delete, 16 update, 32 truncate.
_LEVELS = {"row": ("UPDATE OR DELETE", "ROW", 1 + 2 + 8 + 16), "table": ("TRUNCATE", "STATEMENT", 2 + 32)}
_FOUND_SQLITE = "SELECT name, tbl_name, sql FROM sqlite_master WHERE type = 'trigger'"
_FOUND_POSTGRESQL = """
    SELECT t.tgname AS name, c.relname AS place, t.tgtype AS type, t.tgenabled IN ('O', 'A') AS is_on,
           t.tgqual IS NULL AND t.tgattr::text = '' AS always, p.proname AS function, p.prosrc AS body, t.tgisinternal
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE c.relnamespace = current_schema()::regnamespace
"""
_RULES = "SELECT rulename AS name, tablename AS place FROM pg_rules WHERE schemaname = current_schema()"


def faults(connection: Connection) -> dict[str, str]:
    """Return what is wrong with the triggers of the tables that are there.

    Args:
        connection: A connection in a transaction.

    Returns:
        Name of the trigger (or rule, or foreign key) -> what is wrong, in words; {} when all are in force.
    """
    there = _tables_there(connection)
    if connection.dialect.name == "postgresql":
        return _faults_on_postgresql(connection, there)
    return _faults_on_sqlite(connection, there)


def put_in_place(connection: Connection) -> dict[str, str]:
    """Create what is missing, replace what differs, and remove what is not the ledger's.

    Args:
        connection: A connection in a transaction that writes, of a role that owns the tables.

    Returns:
        What :func:`faults` said before; {} when nothing was done.
    """
    found, there = faults(connection), _tables_there(connection)
    if connection.dialect.name == "postgresql":
        _put_on_postgresql(connection, there, found)
    else:
        expected = _expected_on_sqlite(there)
        for name in found:
            connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {_quoted(name)}")
            if name in expected:
                connection.exec_driver_sql(expected[name])
    return found


def _tables_there(connection: Connection) -> list[Table]:
    names = (
        "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')"
        if connection.dialect.name == "postgresql"
        else "SELECT name FROM sqlite_master WHERE type = 'table'"
    )
    there = set(connection.execute(text(names)).scalars())
    return [table for table in tables.metadata.sorted_tables if table.name in there]


# SQLite


def _faults_on_sqlite(connection: Connection, there: list[Table]) -> dict[str, str]:
    expected, names = _expected_on_sqlite(there), {table.name for table in there}
    found = {row.name: row for row in connection.execute(text(_FOUND_SQLITE))}
    wrong = {}
    for name, wanted in expected.items():
        if name not in found:
            wrong[name] = f"the trigger {name} is missing"
        elif found[name].sql != wanted:
            wrong[name] = f"the trigger {name} was changed"
    for name, row in found.items():
        if name not in expected and row.tbl_name in names:
            wrong[name] = f"the trigger {name} on {row.tbl_name} is not the ledger's"
    return wrong


def _expected_on_sqlite(there: list[Table]) -> dict[str, str]:
    """Return name -> text of the triggers, as SQLite keeps it."""
    expected = {}
    for table in there:
        words = f"SELECT RAISE(ABORT, 'the ledger is append-only: {table.name}')"
        for verb in ("UPDATE", "DELETE"):
            name = f"{table.name}_no_{verb.lower()}"
            expected[name] = f"CREATE TRIGGER {name} BEFORE {verb} ON {table.name} BEGIN {words}; END"
        # INSERT OR REPLACE deletes without a DELETE trigger, so what it would replace is looked for first.
        for number, columns in enumerate(_unique_columns(table)):
            match = " AND ".join(f"{column} = NEW.{column}" for column in columns)
            name = f"{table.name}_no_replace_{number}"
            expected[name] = (
                f"CREATE TRIGGER {name} BEFORE INSERT ON {table.name} "
                f"WHEN EXISTS (SELECT 1 FROM {table.name} WHERE {match}) BEGIN {words}; END"
            )
    return expected


def _unique_columns(table: Table) -> list[list[str]]:
    unique = [
        sorted(column.name for column in constraint.columns)
        for constraint in table.constraints
        if isinstance(constraint, UniqueConstraint)
    ]
    return [["id"], *sorted(unique)]


# PostgreSQL


def _faults_on_postgresql(connection: Connection, there: list[Table]) -> dict[str, str]:
    expected, names = _expected_on_postgresql(there), {table.name for table in there}
    rows = [row for row in connection.execute(text(_FOUND_POSTGRESQL)) if row.place in names]
    found = {row.name: row for row in rows if not row.tgisinternal}
    wrong = {}
    for name, (place, type_) in expected.items():
        row = found.get(name)
        if row is None or row.place != place:
            wrong[name] = f"the trigger {name} is missing"
        elif not row.is_on:
            wrong[name] = f"the trigger {name} is switched off"
        elif (row.type, row.always, row.function, row.body) != (type_, True, _FUNCTION, _BODY):
            wrong[name] = f"the trigger {name} was changed"
    for row in rows:
        if row.tgisinternal and not row.is_on:
            wrong[row.name] = f"a foreign key of {row.place} is switched off ({row.name})"
        elif not row.tgisinternal and row.name not in expected:
            wrong[row.name] = f"the trigger {row.name} on {row.place} is not the ledger's"
    for row in connection.execute(text(_RULES)):
        if row.place in names:
            wrong[row.name] = f"the rule {row.name} on {row.place} is not the ledger's"
    return wrong


def _put_on_postgresql(connection: Connection, there: list[Table], wrong: Mapping[str, str]) -> None:
    names = {table.name for table in there}
    for table in there if any("foreign key" in words for words in wrong.values()) else ():
        connection.exec_driver_sql(f"ALTER TABLE {table.name} ENABLE TRIGGER ALL")
    expected = _expected_on_postgresql(there)
    for query, kind in ((_FOUND_POSTGRESQL, "TRIGGER"), (_RULES, "RULE")):
        for row in list(connection.execute(text(query))):
            is_ours = kind == "TRIGGER" and (row.name in expected or row.tgisinternal)
            if row.place in names and not is_ours:
                name = _quoted(row.name).replace("%", "%%")  # the driver reads it as a format
                connection.exec_driver_sql(f"DROP {kind} {name} ON {row.place}")
    connection.exec_driver_sql(
        f"CREATE OR REPLACE FUNCTION {_FUNCTION}() RETURNS trigger LANGUAGE plpgsql AS $${_BODY.replace('%', '%%')}$$"
    )
    for name, (place, _) in expected.items():
        if name in wrong:
            verbs, level, _ = _LEVELS[name.rpartition("_")[2]]
            connection.exec_driver_sql(
                f"CREATE OR REPLACE TRIGGER {name} BEFORE {verbs} ON {place} "
                f"FOR EACH {level} EXECUTE FUNCTION {_FUNCTION}()"
            )
            connection.exec_driver_sql(f"ALTER TABLE {place} ENABLE TRIGGER {name}")


def _expected_on_postgresql(there: list[Table]) -> dict[str, tuple[str, int]]:
    """Return name -> table and `tgtype` of the triggers."""
    return {
        f"{table.name}_append_only_{level}": (table.name, type_)
        for table in there
        for level, (_, _, type_) in _LEVELS.items()
    }


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
