"""Tables of pairs that people bring and take away: CSV, TSV and parquet, whose cells stay as they are."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esci_tournament.registry.delimited import delimiter_of
from esci_tournament.registry.errors import DataError, UsageError
from esci_tournament.tasks.data.layout import UNNAMED_INDEX

if TYPE_CHECKING:
    import pyarrow as pa

DELIMITERS = {".csv": ",", ".tsv": "\t"}
FORMATS = (*DELIMITERS, ".parquet")
# What PyArrow, gzip and zlib raise on damaged files
_DAMAGE = (
    *(ArithmeticError, EOFError, LookupError, MemoryError, NotImplementedError, OSError, TypeError, ValueError),
    zlib.error,
)
_LONGEST_CELL = 16 * 2**20  # characters
_KEY = "query"  # a column of every table of pairs, by which the delimiter is recognised


def format_of(path: Path) -> str:
    """Return which of :data:`FORMATS` a file has by its name, with or without .gz; "" for none."""
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    return suffix if suffix in FORMATS and not (suffix == ".parquet" and path.suffix == ".gz") else ""


def check_name(path: Path) -> None:
    """Check that a file can be written by its name.

    Args:
        path: The file.

    Raises:
        UsageError: If its name ends in none of :data:`FORMATS`.
    """
    if not format_of(path):
        raise UsageError(f"--out {path}: the name must end in {', '.join(FORMATS)}")


def read_table(path: Path) -> pa.Table:
    """Return a table with all cells as they stand in the file.

    CSV is text: nothing is taken for a number, a date or a missing value. It is UTF-8 (with or without the mark that
    Windows programs write) or UTF-16 with such a mark; columns are separated by commas, or by semicolons, tabs or bars
    where the header says so.

    Args:
        path: A file .csv or .tsv, also with .gz, or a parquet file or folder of part files.

    Returns:
        The table, columns of CSV as strings.

    Raises:
        DataError: If it is missing, unreadable, without rows, or has another name.
    """
    from esci_tournament.tasks.data.parquet_files import check_pointer

    kind = format_of(path)
    if not kind:
        raise DataError(f"not a {', '.join(FORMATS)} file", file=path)
    if not path.exists():
        raise DataError("the file is missing", file=path)
    if path.is_file():
        check_pointer(path)
    try:
        table = _read_parquet(path) if kind == ".parquet" else _read_text(path, DELIMITERS[kind])
    except DataError:
        raise
    except _DAMAGE as error:
        raise DataError(f"the file cannot be read: {error}", file=path) from error
    if not table.num_rows:
        raise DataError("the file holds no rows", file=path)
    return table


def write_table(table: pa.Table, path: Path, raw: bool = True) -> None:
    """Write a table, under a temporary name first, so that a file is complete or absent.

    Args:
        table: The table. In CSV a missing value is an empty cell, what is neither text nor number is JSON or ISO 8601,
            and the unnamed index of a pandas frame is left out.
        path: File whose name ends in .csv, .tsv or .parquet; .gz may follow the first two.
        raw: Whether CSV has all text as it is, also what a spreadsheet would take for a formula.

    Raises:
        UsageError: If the name ends otherwise.
    """
    import pyarrow.parquet as pq

    from esci_tournament.registry.files import publish

    check_name(path)
    kind = format_of(path)
    partial = path.with_name(f".{path.name}.part")
    if kind == ".parquet":
        pq.write_table(table, partial)
    else:
        opened: Any = gzip.open if path.suffix == ".gz" else open
        with opened(partial, "wt", encoding="utf-8", newline="") as file:
            file.writelines(_line(cells, DELIMITERS[kind]) for cells in _cells(without_index(table), raw))
    publish(partial, path)


def without_index(table: pa.Table) -> pa.Table:
    """Return a table without the columns in which pandas keeps the unnamed index of a frame."""
    return table.select([name for name in table.column_names if not name.startswith(UNNAMED_INDEX)])


def beside(table: pa.Table, answer: dict[str, pa.Array]) -> tuple[pa.Table, str]:
    """Return a table with further columns at its end, none of which takes the name of one that is there.

    Args:
        table: The table.
        answer: Name -> column of as many rows.

    Returns:
        The table, and what its new columns are called: "" as in `answer`, else a prefix of all of them.
    """
    prefix, number = "", 1
    while {f"{prefix}{name}" for name in answer} & set(table.column_names):
        prefix, number = f"champion_{number}_" if number > 1 else "champion_", number + 1
    for name, column in answer.items():
        table = table.append_column(f"{prefix}{name}", column)
    return table, prefix


def _read_parquet(path: Path) -> pa.Table:
    from esci_tournament.tasks.data.parquet_files import opened

    table = opened(path).read()
    table.validate(full=True)
    return table


def _read_text(path: Path, delimiter: str) -> pa.Table:
    import pyarrow as pa

    lines = io.StringIO(_decoded(path), newline="")
    delimiter = delimiter_of(lines.readline(), _KEY, delimiter)
    lines.seek(0)
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        names = next(reader, [])
        columns: list[list[str]] = [[] for _ in names]
        for values in reader:
            if len(values) != len(names):
                if not values:  # a blank line
                    continue
                raise DataError(
                    f"a row has {len(values)} cells, and the header {len(names)}",
                    file=path,
                    rows=[f"line {reader.line_num}"],
                    advice="put cells that hold the separator or a line break in quotation marks",
                )
            for column, value in zip(columns, values, strict=True):
                column.append(value)
    except csv.Error as error:
        raise DataError(f"the file is no CSV ({error})", file=path, rows=[f"line {reader.line_num}"]) from error
    return pa.Table.from_arrays([pa.array(column, pa.large_string()) for column in columns], names=names)


def _decoded(path: Path) -> str:
    content = (gzip.decompress if path.suffix == ".gz" else bytes)(path.read_bytes())
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        advice = "save it as UTF-8; spreadsheets offer that as a format of its own"
        raise DataError(f"the file is not {encoding.upper()[:6]} ({error})", file=path, advice=advice) from error


def _cells(table: pa.Table, raw: bool) -> Iterator[Sequence[Any]]:
    from esci_tournament.registry.spreadsheets import harmless

    clean: Callable[[Any], Any] = (lambda cell: cell) if raw else harmless
    yield [clean(name) for name in table.column_names]
    for batch in table.to_batches(max_chunksize=10_000):
        columns = [[clean(_cell(value)) for value in column.to_pylist()] for column in _short(batch)]
        yield from zip(*columns, strict=True)


def _line(cells: Sequence[Any], delimiter: str) -> str:
    """Return a line of CSV; Python's own writer leaves a carriage return bare, which then begins a new row."""
    texts = [str(cell) for cell in cells]
    quoted = [
        '"{}"'.format(text.replace('"', '""')) if {delimiter, '"', "\r", "\n"} & set(text) else text for text in texts
    ]
    return (delimiter.join(quoted) or '""') + "\n"


def _short(batch: pa.RecordBatch) -> Iterator[Any]:
    """Yield the columns of a batch, numbers of single precision with as few digits as tell them apart."""
    import numpy as np
    import pyarrow as pa

    for column in batch.columns:
        if pa.types.is_float32(column.type):
            texts = [None if value is None else str(np.float32(value)) for value in column.to_pylist()]
            yield pa.array(texts, pa.string())
        else:
            yield column


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return value
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict) else str(value)
