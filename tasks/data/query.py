"""Read data from a database: SQL queries become the official files, streamed in chunks and checked value by value."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from esci_tournament.registry.errors import DataError, UsageError
from esci_tournament.registry.settings import Settings
from esci_tournament.tasks.data.layout import COLUMNS, EVENTS_FILE, EXAMPLES_FILE, PRODUCTS_FILE, Kind

Progress = Callable[[float, str], None]
SETTINGS = {
    EXAMPLES_FILE: "data_sql_examples",
    PRODUCTS_FILE: "data_sql_products",
    EVENTS_FILE: "data_sql_behaviour",
}
_ARROW: dict[Kind, pa.DataType] = {
    "integer": pa.int64(),
    "number": pa.float64(),
    "text": pa.string(),
    "time": pa.timestamp("us"),
}
_WORDS: dict[Kind, str] = {
    "integer": "a whole number",
    "number": "a number",
    "text": "text",
    "time": "a moment (a timestamp, or text in ISO 8601)",
}


def read_database(settings: Settings, folder: Path, progress: Progress = lambda share, doing: None) -> None:
    """Write what the queries of the settings give as the official files into an empty folder.

    The database is only read, and on PostgreSQL and SQLite all queries see the same state of it. Rows come through a
    cursor of the server, `data_sql_rows` at a time.

    Args:
        settings: `data_sql_url`, the queries `data_sql_examples`, `data_sql_products` and, if behaviour is wanted,
            `data_sql_behaviour`, and `data_sql_rows` are read.
        folder: The folder; a query's columns must be exactly those of its file, in any order.
        progress: Called with the share of files done, in [0, 1], and how many rows of which file are written.

    Raises:
        UsageError: If a setting is missing or the URL cannot be used; the URL is never shown.
        DataError: Naming setting, column and first rows, if a query fails or does not give what the file must hold.
    """
    queries = {file: getattr(settings, name) for file, name in SETTINGS.items()}
    if settings.data_sql_url is None or not (queries[EXAMPLES_FILE] and queries[PRODUCTS_FILE]):
        wanted = ["data_sql_url"] * (settings.data_sql_url is None)
        wanted += [SETTINGS[file] for file in (EXAMPLES_FILE, PRODUCTS_FILE) if not queries[file]]
        raise UsageError(f"data `sql` needs the settings {', '.join(wanted)}; set them in the environment of the run")
    wanted_files = [file for file, query in queries.items() if query]
    with _reading(settings.data_sql_url.get_secret_value()) as connection:
        for number, file in enumerate(wanted_files):

            def told(rows: int, number: int = number, file: str = file) -> None:
                progress(number / len(wanted_files), f"{rows:,} rows of {file}")

            _copy(connection, queries[file], folder / file, settings.data_sql_rows, told)
    progress(1.0, "read")


def _copy(connection: Connection, query: str, path: Path, chunk: int, told: Callable[[int], None]) -> None:
    columns, where, row = COLUMNS[path.name], f"setting {SETTINGS[path.name]}", 0
    try:
        result = connection.execution_options(yield_per=chunk).execute(text(_literal(query)))
        if not result.returns_rows:
            raise DataError("the query gives no rows, it is no SELECT", file=where)
        names = list(result.keys())
        _check_names(names, list(columns), where)
        order = [names.index(name) for name in columns]
        schema = pa.schema([pa.field(name, _ARROW[kind]) for name, kind in columns.items()])
        with pq.ParquetWriter(path, schema) as writer:
            for rows in result.partitions():
                values = list(zip(*rows, strict=True))
                arrays = [
                    _array(values[place], kind, where, name, row)
                    for place, (name, kind) in zip(order, columns.items(), strict=True)
                ]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
                row += len(rows)
                told(row)
    except SQLAlchemyError as error:
        raise DataError(f"the query failed ({_cause(error)})", file=where, advice="try it in the database") from error
    if not row:
        raise DataError("the query gives no row", file=where, count=0, advice="it must give at least one")


def _literal(query: str) -> str:
    """Return a query with its colons escaped; SQLAlchemy would take `:word` for a parameter."""
    return re.sub(r"(?<![:\w\\]):(?=\w)", r"\\:", query)


def _check_names(found: Sequence[str], wanted: Sequence[str], where: str) -> None:
    problems = {
        "a column is missing": [name for name in wanted if name not in found],
        "a column is not known": [name for name in found if name not in wanted],
        "a column stands twice": sorted({name for name in found if found.count(name) > 1}),
    }
    for problem, names in problems.items():
        if names:
            advice = f"the query must give exactly {', '.join(wanted)}"
            raise DataError(problem, file=where, column=", ".join(names), advice=advice)


def _array(values: Sequence[Any], kind: Kind, where: str, column: str, first_row: int) -> pa.Array:
    """Return a column of a chunk in the type that the official file has; only text may be missing.

    Raises:
        DataError: Naming the first rows whose value is of another kind.
    """
    converted, wrong = [], []
    for number, value in enumerate(values):
        fitting = _fitting(value, kind)
        if fitting is None and not (value is None and kind == "text"):
            wrong.append(f"row {first_row + number}: {value!r}")
        converted.append(fitting)
    if wrong:
        raise DataError(
            f"a value is not {_WORDS[kind]}",
            file=where,
            column=column,
            rows=wrong,
            count=len(wrong),
            advice="cast it in the query, or leave these rows out there",
        )
    return pa.array(converted, _ARROW[kind])


def _fitting(value: Any, kind: Kind) -> Any:
    """Return a value as the kind has it, None when it is of another kind or missing."""
    if kind == "text":
        return value if isinstance(value, str) else None
    if kind == "time":
        return _moment(value)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    if kind == "number":
        return float(value)
    return int(value) if value == value and -(2**63) < value < 2**63 and value == int(value) else None


def _moment(value: Any) -> dt.datetime | None:
    """Return a moment in UTC without a time zone, as the event file has it."""
    if isinstance(value, str):
        try:
            value = dt.datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, dt.datetime):
        return None
    return value.astimezone(dt.UTC).replace(tzinfo=None) if value.tzinfo else value


@contextmanager
def _reading(url: str) -> Iterator[Connection]:
    """Yield a connection in one transaction that reads only and, where the database can, sees one state throughout."""
    where = "setting data_sql_url"
    try:
        parsed = make_url(url)
        engine = create_engine(parsed, hide_parameters=True)
    except Exception as error:  # whatever a driver says of a URL may repeat it
        raise UsageError(
            f"{where}: no database can be opened under it ({type(error).__name__}); it must be a SQLAlchemy URL whose "
            "driver is installed, such as postgresql+psycopg://reader:...@host/shop"
        ) from None
    dialect = engine.dialect.name
    if dialect == "sqlite" and not Path(parsed.database or "").is_file():
        raise DataError(f"the SQLite file {parsed.database!r} does not exist", file=where)
    try:
        options: dict[str, Any] = {"stream_results": True}
        if dialect == "postgresql":
            options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        try:
            connection = engine.connect().execution_options(**options)
        except SQLAlchemyError as error:
            advice = "check address, user and password, and that the database is up"
            raise DataError(f"no connection ({_cause(error)})", file=where, advice=advice) from None
        with connection:
            if dialect == "sqlite":
                connection.exec_driver_sql("PRAGMA query_only = ON")
                connection.exec_driver_sql("BEGIN")
            yield connection
    finally:
        engine.dispose()


def _cause(error: SQLAlchemyError) -> str:
    """Return the first line of what the database said; its words hold neither URL nor password."""
    said = str(getattr(error, "orig", None) or type(error).__name__).strip()
    return said.splitlines()[0] if said else type(error).__name__
