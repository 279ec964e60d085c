"""The writing side of the ledger's hash chain: one entry for each row, made in the transaction that appends the row.

An entry holds the SHA-256 of its row, the hash of the entry before it, and its own hash over all of that. Rows of every
table are in it, the enrolments of reviewers too: a secret of 160 random bits cannot be guessed from a digest.

Digests are made of what the database gives back, in a form that is the same for SQLite and PostgreSQL: moments in UTC
with microseconds, JSON with sorted keys and with numbers by value (PostgreSQL keeps no difference between 1e2 and 100),
and columns that are NULL left out, so that a column which a later schema adds changes no digest. A payload whose text
was changed and whose value was not, such as by white space, has the same digest.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Table, inspect, select

from esci_tournament.registry import tables

BATCH = 500  # rows that are read or written at once; SQLite limits how many values a statement may have
BEFORE = {"before_chain": True}  # payload of entries for rows that were there when the chain began


def digest_of_row(table: str, row: Mapping[Any, Any]) -> str:
    """Return the SHA-256 of a row's content.

    Args:
        table: Name of the table.
        row: Column -> value, as the database gave it back.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> digest_of_row("x", {"id": 1, "share": 1e2}) == digest_of_row("x", {"share": 100, "id": 1, "y": None})
        True
    """
    content = [table, {str(column): _plain(value) for column, value in row.items() if value is not None}]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=repr)
    return hashlib.sha256(text.encode()).hexdigest()


def hash_of_entry(entry: Mapping[Any, Any]) -> str:
    """Return the hash of an entry of the chain: the SHA-256 of all its columns but `hash` itself.

    Args:
        entry: Column -> value.

    Returns:
        64 hexadecimal digits.
    """
    return digest_of_row("chain", {column: value for column, value in entry.items() if column != "hash"})


class Chain:
    """The end of the chain, as the one transaction that writes sees it.

    Args:
        connection: A connection in a transaction beside which nobody else writes.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._head: tuple[int, str] | None = None  # position and hash of the last entry

    def append(self, table: Table, row: Mapping[Any, Any]) -> None:
        """Append the entry of a row that was just inserted, signed and dated as the row is."""
        entry = self._entry(table, row, {"at": row["at"], "who": row["who"], "payload": {}})
        self._connection.execute(tables.chain.insert(), entry)

    def begin(self, at: dt.datetime, who: str) -> None:
        """Append an entry for each row that stands, table by table; called once, when the chain is new.

        Args:
            at: Moment that the entries are given, aware.
            who: Who they are signed by, user@host.
        """
        there = set(inspect(self._connection).get_table_names())
        for table in tables.RECORDED:
            if table.name not in there:
                continue
            for rows in batches(self._connection, table):
                signed = {"at": at, "who": who, "payload": BEFORE}
                self._connection.execute(tables.chain.insert(), [self._entry(table, row, signed) for row in rows])

    def _entry(self, table: Table, row: Mapping[Any, Any], signed: Mapping[str, Any]) -> dict[str, Any]:
        position, previous = self._head or self._last()
        entry = {"id": position + 1, "entry_table": table.name, "entry_row": row["id"]}
        entry |= {"digest": digest_of_row(table.name, row), "previous": previous, **signed}
        entry["hash"] = hash_of_entry(entry)
        self._head = (position + 1, entry["hash"])
        return entry

    def _last(self) -> tuple[int, str]:
        query = select(tables.chain.c.id, tables.chain.c.hash).order_by(tables.chain.c.id.desc()).limit(1)
        last = self._connection.execute(query).first()
        # What the first entry follows is random: it is the name of this ledger in its checkpoints.
        return (last.id, last.hash) if last else (0, secrets.token_hex(32))


def batches(connection: Connection, table: Table) -> Iterator[Sequence[Mapping[Any, Any]]]:
    """Yield the rows of a table in order of their ids, `BATCH` at a time.

    Args:
        connection: A connection in a transaction.
        table: The table.

    Yields:
        The next rows, column -> value each.
    """
    query = select(table).order_by(table.c.id).limit(BATCH)
    rows = list(connection.execute(query).mappings())
    while rows:
        yield rows
        rows = list(connection.execute(query.where(table.c.id > rows[-1]["id"])).mappings())


def _plain(value: Any) -> Any:
    """Return a value of a column as JSON that is the same whatever the database."""
    if isinstance(value, dict):
        return {str(key): _plain(content) for key, content in value.items()}
    if isinstance(value, list):
        return [_plain(content) for content in value]
    if isinstance(value, float) and value.is_integer():
        return int(Decimal(repr(value)))  # of the digits that were written, as PostgreSQL reads them
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat(timespec="microseconds")
    return value
