"""Open parquet as people write it: one file, or a folder of part files, as Spark, Dask and DuckDB leave them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from esci_tournament.registry.errors import DataError

BATCH_ROWS = 65_536
# What PyArrow raises on a damaged file; UnicodeDecodeError, a ValueError, for a column's name
DAMAGE = (pa.ArrowException, OSError, ValueError, TypeError, LookupError, ArithmeticError)
_SUFFIXES = (".parquet", ".parq", ".pq")
_MAGIC = b"PAR1"
_POINTER = b"version https://git-lfs.github.com/spec/"
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"  # what Hive calls the folder of rows without a value
# What stands beside part files that are not all of one version of a table
_TABLE_FORMATS = {"_delta_log": "Delta", ".hoodie": "Hudi", "metadata/*.metadata.json": "Iceberg"}


@dataclass(frozen=True)
class Part:
    """A file that holds rows.

    Attributes:
        path: The file.
        keys: Column -> value of its rows, by the names of the folders that it stands in (`product_locale=us`).
    """

    path: Path
    keys: dict[str, str | None]


class Parts:
    """The part files of one table, in their order. Files are open only while they are read.

    Args:
        path: What was opened.
        parts: At least one.

    Attributes:
        schemas: The schema of each part, with the columns that the names of its folders give.
        rows: Rows of all parts, by their footers.

    Raises:
        DataError: As :func:`opened`.
    """

    def __init__(self, path: Path, parts: Sequence[Part]) -> None:
        self.path, self.parts, self.rows = path, tuple(parts), 0
        schemas = []
        for part in parts:
            check_pointer(part.path)
            with _reading(part.path) as file:
                schemas.append(_schema(part, file.schema_arrow))
                self.rows += file.metadata.num_rows
        self.schemas = tuple(schemas)

    @property
    def schema(self) -> pa.Schema:
        """The schema of the first part."""
        return self.schemas[0]

    def batches(self, columns: Sequence[str], size: int = BATCH_ROWS) -> Iterator[tuple[Part, pa.RecordBatch]]:
        """Yield some columns, part after part, at most `size` rows at a time.

        Args:
            columns: Names of columns that each part has.
            size: Rows of a batch at most.

        Yields:
            The part, and a batch with the columns in the order asked for, of the types that the part has.

        Raises:
            DataError: If a part is damaged or lacks a column.
        """
        for part, schema in zip(self.parts, self.schemas, strict=True):
            with _reading(part.path) as file:
                stored = [name for name in columns if name in file.schema_arrow.names]
                for batch in file.iter_batches(batch_size=size, columns=stored):
                    arrays = [
                        batch.column(name) if name in stored else _repeated(part.keys[name], batch.num_rows)
                        for name in columns
                    ]
                    yield part, pa.record_batch(arrays, schema=pa.schema([schema.field(name) for name in columns]))

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return a table of all rows; a column whose type differs between parts has one that holds them all.

        Args:
            columns: Names of columns that each part has; default: all columns, also those that only some parts have.

        Raises:
            DataError: If a part is damaged, or types do not fit together.
        """
        if columns is None:
            return self._all()
        tables = [pa.Table.from_batches([batch]) for _, batch in self.batches(columns)]
        if not tables:
            return pa.schema([self.schema.field(name) for name in columns]).empty_table()
        return pa.concat_tables(tables, promote_options="permissive")

    def _all(self) -> pa.Table:
        tables = []
        for part in self.parts:
            with _reading(part.path) as file:
                table = file.read()
            for name, value in part.keys.items():
                if name not in table.column_names:
                    table = table.append_column(name, _repeated(value, table.num_rows))
            tables.append(table)
        if len(tables) == 1:
            return tables[0]
        try:
            return pa.concat_tables(tables, promote_options="permissive")
        except DAMAGE as error:
            raise DataError(f"its part files do not fit together ({error})", file=self.path) from error


def opened(path: Path) -> Parts:
    """Read the footers of a parquet file, or of a folder of part files.

    Parts are the files of the folder, and of folders in it that are called `column=value`, whose names end in .parquet
    or that begin as parquet files do. Names that begin with _ or . are passed over, as Spark does. The order is that of
    their names, with numbers in them compared as numbers.

    Args:
        path: The file or folder; links are followed.

    Returns:
        The parts.

    Raises:
        DataError: If nothing is there, or it is a Git LFS pointer, a folder without parts, a table of Delta, Iceberg or
            Hudi, or a file that is no parquet or damaged.
    """
    return Parts(path, parts_of(path))


def parts_of(path: Path) -> list[Part]:
    """Return the part files of a folder in their order, or the one file.

    Args:
        path: The file or folder.

    Returns:
        At least one part.

    Raises:
        DataError: As :func:`opened`, for what is seen without opening a file.
    """
    if path.is_symlink() and not path.exists():
        raise DataError(
            f"it is a link to {path.readlink()}, which does not exist", file=path, advice="correct or replace the link"
        )
    if not path.exists():
        raise DataError("a file is missing", file=path)
    if path.is_file():
        return [Part(path, {})]
    if not path.is_dir():
        raise DataError("it is neither a file nor a folder", file=path, advice="put a parquet file there")
    for pattern, called in _TABLE_FORMATS.items():
        if any(path.glob(pattern)):
            advice = (
                "its folder also holds rows that were changed or deleted since; write its current version as parquet"
            )
            raise DataError(f"it is a table in the {called} format", file=path, advice=advice)
    found = list(_parts_in(path, {}))
    if not found:
        raise DataError("the folder has no part file (*.parquet)", file=path, advice="put the part files into it")
    return found


def is_there(path: Path) -> bool:
    """Return whether something has a name that data may have: a file, a folder, or a link to nowhere."""
    return path.exists() or path.is_symlink()


def bytes_of(path: Path) -> int:
    """Return the bytes of a file, or of all its part files.

    Raises:
        DataError: As :func:`parts_of`.
    """
    return sum(part.path.stat().st_size for part in parts_of(path))


def stamp_of(path: Path) -> str:
    """Return what changes when a file, or one of its part files, is written anew: names, sizes and times.

    Raises:
        DataError: As :func:`parts_of`.
    """
    lines = []
    for part in parts_of(path):
        facts = part.path.stat()
        lines.append(f"{part.path.resolve()}\0{facts.st_size}\0{facts.st_mtime_ns}")
    return "\0".join(lines)


def is_pointer(path: Path) -> bool:
    """Return whether a file is a Git LFS pointer; False for one that cannot be read."""
    return _beginning(path, len(_POINTER)) == _POINTER


def check_pointer(path: Path) -> None:
    """Refuse a file that is a Git LFS pointer, which a clone without Git LFS has in place of the file.

    Args:
        path: Any file.

    Raises:
        DataError: If it is one.
    """
    if is_pointer(path):
        advice = "run `git lfs install` and `git lfs pull` in the clone, or `tournament data download`"
        raise DataError("it is a Git LFS pointer, not the file", file=path, advice=advice)


def damaged(path: Path, error: Exception) -> DataError:
    """Return the error that a file cannot be read, not raised.

    Args:
        path: The file.
        error: What was raised, one of :data:`DAMAGE`.
    """
    if isinstance(error, PermissionError):
        return DataError("the file may not be read", file=path, advice="give this user the right to read it")
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    advice = "fetch or write the file again"
    return DataError(f"the file cannot be read: truncated, damaged or no parquet ({reason})", file=path, advice=advice)


@contextmanager
def _reading(path: Path) -> Iterator[pq.ParquetFile]:
    """Open one file; whatever is raised while it is read becomes an error that names it."""
    try:
        # A path would be taken for an address where it looks like one
        with pa.OSFile(str(path)) as source, pq.ParquetFile(source) as file:
            yield file
    except DAMAGE as error:
        raise damaged(path, error) from error


def _parts_in(folder: Path, keys: dict[str, str | None]) -> Iterator[Part]:
    try:
        names = sorted(folder.iterdir(), key=lambda one: in_order(one.name))
    except OSError as error:
        advice = "give this user the right to read it"
        raise DataError("the folder may not be read", file=folder, advice=advice) from error
    for one in names:
        if one.name.startswith(("_", ".")):
            continue
        if one.is_dir():
            column, equals, value = one.name.partition("=")
            if equals and column:
                yield from _parts_in(one, keys | {unquote(column): None if value == _NO_VALUE else unquote(value)})
        elif one.name.lower().endswith(_SUFFIXES) or _beginning(one, len(_MAGIC)) == _MAGIC:
            yield Part(one, keys)


def in_order(name: str) -> tuple[tuple[str, int], ...]:
    """Return a key for sorting names that puts part-2 before part-10."""
    return tuple((text, int(digits or 0)) for text, digits in re.findall(r"(\D*)([0-9]*)", name))


def _beginning(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError:
        return b""


def _schema(part: Part, schema: pa.Schema) -> pa.Schema:
    for name in part.keys:
        if name not in schema.names:
            schema = schema.append(pa.field(name, pa.large_string()))
    return schema


def _repeated(value: str | None, rows: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, pa.large_string()), rows)
