"""Appending rows to the ledger's tables and reading them back, inside one transaction."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Table, select

from esci_tournament.registry.errors import StoreError

Row = Mapping[Any, Any]
Payload = Mapping[str, Any] | None


class Rows:
    """The rows that one transaction sees; what it appends is signed by `who`."""

    def __init__(self, connection: Connection, who: str = "") -> None:
        self.connection = connection
        self.who = who

    def all(self, table: Table, /, **equal: Any) -> list[Row]:
        """Return the rows whose columns equal those given (None is any), in order of appending."""
        query = select(table).filter_by(**{key: value for key, value in equal.items() if value is not None})
        return list(self.connection.execute(query.order_by(table.c.id)).mappings())

    def one(self, table: Table, natural: Mapping[str, Any]) -> Row | None:
        """Return the row under a natural key, or None."""
        return self.connection.execute(select(table).filter_by(**natural)).mappings().first()

    def insert(self, table: Table, values: Mapping[str, Any], payload: Payload = None) -> Row:
        """Append a row and return it."""
        row = {**values, "at": now(), "who": self.who, "payload": dict(payload or {})}
        return self.connection.execute(table.insert().values(**row).returning(*table.c)).mappings().one()

    def append(
        self, table: Table, natural: Mapping[str, Any], fixed: Mapping[str, Any] | None = None, payload: Payload = None
    ) -> Row:
        """Return the row under a natural key, inserted when missing.

        Raises:
            StoreError: if the row stands and one of its columns contradicts `fixed`.
        """
        row = self.one(table, natural)
        if row is None:
            return self.insert(table, {**natural, **(fixed or {})}, payload)
        for column, value in (fixed or {}).items():
            if row[column] != value:
                key = ", ".join(f"{name} {content}" for name, content in natural.items())
                raise StoreError(
                    f"the ledger's {table.name} has {column} {row[column]!r} for {key}, and now {value!r} is said; "
                    "it is append-only: give what is new an id of its own"
                )
        return row


def now() -> dt.datetime:
    """Return the moment, in UTC."""
    return dt.datetime.now(dt.UTC)
