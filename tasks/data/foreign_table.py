"""Read Parquet files that others wrote: bounded by their footer first, then in small batches; runs in a child process.

What is read reaches the parent as raw numbers in files, which nobody has to parse.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as compute
import pyarrow.parquet as parquet

from esci_tournament.registry.errors import SpecError, StoreError
from esci_tournament.tasks.data.parquet_files import is_pointer

MIB = 2**20
_BATCH = 65_536
_FOOTER_STRING, _FOOTER_ITEMS = 16 * MIB, 1_000_000  # bytes of a text, and entries, in the footer

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE}  # not the fault of the file


@dataclass(frozen=True)
class Bounds:
    """What a file may have.

    Attributes:
        rows: rows.
        file_mib: size on disk, MiB.
        unpacked_mib: size of all columns when they are unpacked, MiB.
        columns: columns, those inside of others counted singly.
        groups: row groups.
        letters: bytes of a text.
    """

    rows: int
    file_mib: int = 4096
    unpacked_mib: int = 4096
    columns: int = 64
    groups: int = 10_000
    letters: int = 10_000


@contextmanager
def opened(path: Path, what: str, bounds: Bounds, texts: Sequence[str] = ()) -> Iterator[parquet.ParquetFile]:
    """Open a file after its footer was found to keep the bounds.

    Args:
        path: The file.
        what: How messages call it, such as "score file".
        bounds: What it may have.
        texts: Columns of text, which are read as dictionaries: a long text that is repeated is held once.

    Yields:
        The file, of which nothing but the footer has been read.

    Raises:
        SpecError: If it is missing, no ordinary file, no Parquet or damaged, here or while it is used, or goes beyond
            a bound.
        StoreError: If the disk fails or is full.
    """
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise SpecError(f"{what} {path} is a folder; write its parts as one file")
        if not stat.S_ISREG(found.st_mode):
            raise SpecError(f"{what} {path} is no ordinary file")
        _at_most(path, what, found.st_size, bounds.file_mib * MIB, "bytes")
        if is_pointer(path):
            advice = "run `git lfs install` and `git lfs pull` in the clone"
            raise SpecError(f"{what} {path} is a Git LFS pointer, not the file; {advice}")
        with _open(path, ()) as source:
            footer = source.metadata
            _at_most(path, what, footer.num_rows, bounds.rows, "rows")
            _at_most(path, what, footer.num_columns, bounds.columns, "columns")
            _at_most(path, what, footer.num_row_groups, bounds.groups, "row groups")
            unpacked = sum(footer.row_group(number).total_byte_size for number in range(footer.num_row_groups))
            _at_most(path, what, unpacked, bounds.unpacked_mib * MIB, "unpacked bytes")
            chosen = [name for name in texts if name in source.schema_arrow.names]
        with _open(path, chosen) as source:
            yield source
    except FileNotFoundError as error:
        raise SpecError(f"{what} {path} is not there; correct the spec") from error
    except MemoryError as error:
        raise SpecError(f"{what} {path} takes more memory than it may") from error
    except OSError as error:
        if error.errno in _DISK:
            raise StoreError(f"{what} {path} cannot be read or copied now: {error.strerror}") from error
        raise SpecError(f"{what} {path} cannot be read as parquet, or is damaged: {error}") from error
    except (pa.ArrowException, ValueError, TypeError, ArithmeticError, LookupError) as error:
        raise SpecError(f"{what} {path} cannot be read as parquet, or is damaged: {error}") from error


def batches(source: parquet.ParquetFile, columns: Sequence[str], bounds: Bounds, what: str) -> Iterator[pa.RecordBatch]:
    """Yield some columns in batches, as many rows as the footer says.

    Args:
        source: The file, from :func:`opened`.
        columns: Names of the columns.
        bounds: What it may have.
        what: How messages call it.

    Yields:
        Batches of at most 65,536 rows.

    Raises:
        SpecError: If a text is longer than it may be, or the rows are not as many as the footer says.
    """
    rows = 0
    for batch in source.iter_batches(_BATCH, columns=list(columns), use_threads=False):
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if is_text(column.type) and _longest(column) > bounds.letters:
                raise SpecError(f"{what}: column {name} has a text of more than {bounds.letters:,} bytes")
        rows += batch.num_rows
        yield batch
    if rows != source.metadata.num_rows:
        raise SpecError(f"{what} is damaged: it has {rows:,} rows, its footer says {source.metadata.num_rows:,}")


def is_text(kind: pa.DataType) -> bool:
    """Tell whether a type is text, as it is or in a dictionary."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def write_numbers(path: str, parts: Sequence[np.ndarray]) -> int:
    """Append arrays to a file as raw numbers.

    Args:
        path: The file.
        parts: The arrays.

    Returns:
        How many numbers were written.
    """
    with Path(path).open("ab") as file:
        for part in parts:
            file.write(np.ascontiguousarray(part).tobytes())
    return sum(part.size for part in parts)


def _open(path: Path, dictionaries: Sequence[str]) -> parquet.ParquetFile:
    return parquet.ParquetFile(
        path,
        memory_map=False,
        buffer_size=MIB,
        read_dictionary=list(dictionaries),
        thrift_string_size_limit=_FOOTER_STRING,
        thrift_container_size_limit=_FOOTER_ITEMS,
    )


def _longest(column: pa.Array) -> int:
    values = column.dictionary if pa.types.is_dictionary(column.type) else column
    return int(compute.max(compute.binary_length(values)).as_py() or 0)


def _at_most(path: Path, what: str, found: int, allowed: int, of: str) -> None:
    if not 0 <= found <= allowed:
        raise SpecError(f"{what} {path} has {found:,} {of}; {allowed:,} are allowed")
