"""Appending rows to the ledger's tables and reading them back, inside one transaction."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Table, select

from esci_tournament.registry.errors import StoreError
from esci_tournament.registry.links import Chain

Row = Mapping[Any, Any]
Payload = Mapping[str, Any] | None


class Rows:
    """The rows that one transaction sees.

    Args:
        connection: A connection in a transaction, which its owner commits.
        who: Who the rows that are appended are signed by, user@host.
    """

    def __init__(self, connection: Connection, who: str = "") -> None:
        self.connection = connection
        self.who = who
        self._chain = Chain(connection)

    def all(self, table: Table, /, **equal: Any) -> list[Row]:
        """Return rows in order of appending.

        Args:
            table: The table.
            equal: Column -> value that it must have; None is any.

        Returns:
            The rows, column -> value each.
        """
        query = select(table).filter_by(**{key: value for key, value in equal.items() if value is not None})
        return list(self.connection.execute(query.order_by(table.c.id)).mappings())

    def one(self, table: Table, natural: Mapping[str, Any]) -> Row | None:
        """Return the row whose columns equal those of a natural key, None when there is none."""
        return self.connection.execute(select(table).filter_by(**natural)).mappings().first()

    def insert(self, table: Table, values: Mapping[str, Any], payload: Payload = None) -> Row:
        """Append a row, and its entry to the hash chain, and return the row.

        Args:
            table: The table.
            values: Column -> value, without `id`, `at`, `who` and `payload`, which every table has.
            payload: The rest, as JSON holds it; default: {}.

        Returns:
            The row as it was stored.
        """
        row = {**values, "at": now(), "who": self.who, "payload": dict(payload or {})}
        stored = self.connection.execute(table.insert().values(**row).returning(*table.c)).mappings().one()
        self._chain.append(table, stored)
        return stored

    def append(
        self, table: Table, natural: Mapping[str, Any], fixed: Mapping[str, Any] | None = None, payload: Payload = None
    ) -> Row:
        """Return the row under a natural key, inserted when missing.

        Args:
            table: The table.
            natural: Column -> value of the natural key.
            fixed: Other columns, which must be the same when the row stands.
            payload: The rest, as JSON holds it; not compared with that of a row that stands.

        Returns:
            The row that stands.

        Raises:
            StoreError: If the row stands and one of its columns contradicts `fixed`.
        """
        row = self.one(table, natural)
        if row is None:
            return self.insert(table, {**natural, **(fixed or {})}, payload)
        for column, value in (fixed or {}).items():
            if row[column] != value:
                key = ", ".join(f"{name} {content}" for name, content in natural.items())
                raise StoreError(
                    f"the ledger's {table.name} has {column} {row[column]!r} for {key}, not {value!r}; "
                    "rows are never changed: record the new value under another id"
                )
        return row


def now() -> dt.datetime:
    """Return the current moment as an aware datetime in UTC."""
    return dt.datetime.now(dt.UTC)
