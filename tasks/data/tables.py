"""Read tables of any kind that people keep data in, a batch at a time: CSV, JSON lines, parquet, Arrow, packed or not.

| name ends in | read as |
|---|---|
| .csv .tsv .txt | text with a header; commas, semicolons, tabs or bars between the cells |
| .jsonl .ndjson | a JSON object a line |
| .parquet | parquet |
| .arrow | Arrow's stream or file, as `datasets` keeps tables |

The first two may be compressed with gzip (.gz) or stand in a .zip. Every value of them is text.
"""

from __future__ import annotations

import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.csv as pacsv

from esci_tournament.registry.delimited import cells_of
from esci_tournament.registry.errors import DataError
from esci_tournament.tasks.data.columns import declared_labels
from esci_tournament.tasks.data.parquet_files import BATCH_ROWS, DAMAGE, Part, Parts, check_pointer, in_order, is_there

TEXTS = (".csv", ".tsv", ".txt")
LINES = (".jsonl", ".ndjson")
_DELIMITERS = (",", ";", "\t", "|")
_BLOCK = 16 * 2**20  # bytes that are parsed at once; no row may be longer
_LONGEST_LINE = 64 * 2**20  # bytes
_NAMED = 1000  # lines of JSON whose keys are taken for the columns
_BROKEN = (*DAMAGE, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, NotImplementedError)

Read = Callable[[Sequence[str]], Iterator[pa.RecordBatch]]


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        name: Its path from the folder that was looked through; with that in the archive after a colon.
        path: The file it stands in.
        columns: Names of its columns.
        read: Called with some of them; yields batches with these columns, of whatever type the file has.
        declared: Column -> what the file itself says that its numbers mean, number -> name of a class.
    """

    name: str
    path: Path
    columns: tuple[str, ...]
    read: Read
    declared: dict[str, dict[str, str]] = field(default_factory=dict)


def tables_in(source: Path, most_bytes: int) -> tuple[list[Table], list[str]]:
    """Find the tables of a file or of a folder and all folders in it; names that begin with _ or . are passed over.

    Args:
        source: The file or folder.
        most_bytes: Bytes that a compressed file may have when it is unpacked.

    Returns:
        The tables in the order of their names, numbers in them compared as numbers; and the other files, which are no
        tables of two columns or more.

    Raises:
        DataError: If nothing is there, or a file that is named as a table is none: damaged, or a Git LFS pointer.
    """
    if not is_there(source):
        raise DataError("nothing is there", file=source, advice="name a folder or file with tables")
    tables: list[Table] = []
    others: list[str] = []
    root = source if source.is_dir() else source.parent
    for path, keys in _files(source, {}):
        name = path.relative_to(root).as_posix()
        check_pointer(path)
        with _readable(path):
            found = list(_tables(path, name, keys, most_bytes))
        # A text of one column has nothing that belongs together
        tables += [one for one in found if len(one.columns) > 1]
        if not any(len(one.columns) > 1 for one in found):
            others.append(name)
    return tables, others


def _files(source: Path, keys: dict[str, str | None]) -> Iterator[tuple[Path, dict[str, str | None]]]:
    if not source.is_dir():
        yield source, keys
        return
    for one in sorted(source.iterdir(), key=lambda one: in_order(one.name)):
        if not one.name.startswith(("_", ".")):
            column, equals, value = one.name.partition("=")
            inner = keys | {column: value} if one.is_dir() and equals and column else keys
            yield from _files(one, inner)


def _tables(path: Path, name: str, keys: dict[str, str | None], most_bytes: int) -> Iterator[Table]:
    kind = Path(name.lower().removesuffix(".gz")).suffix
    if kind in (".parquet", ".parq", ".pq"):
        parts = Parts(path, [Part(path, keys)])
        columns = tuple(parts.schema.names)
        declared = {one: said for one in columns if (said := declared_labels(parts.schema, one))}
        yield Table(name, path, columns, lambda wanted: (batch for _, batch in parts.batches(wanted)), declared)
    elif kind == ".arrow":
        yield _arrow(path, name)
    elif kind in (*TEXTS, *LINES):
        packed = path.name.lower().endswith(".gz")

        def open_it() -> IO[bytes]:
            return io.BufferedReader(_Limited(gzip.open(path), most_bytes)) if packed else path.open("rb")

        yield _lines_of(path, name, kind, open_it)
    elif kind == ".zip":
        with zipfile.ZipFile(path) as archive:
            members = [one for one in archive.namelist() if Path(one).suffix.lower() in (*TEXTS, *LINES)]
        for member in members:
            if Path(member).name.startswith(("_", ".")) or "__MACOSX" in member:
                continue

            def open_member(member: str = member) -> IO[bytes]:
                return io.BufferedReader(_Limited(zipfile.ZipFile(path).open(member), most_bytes))

            yield _lines_of(path, f"{name}: {member}", Path(member).suffix.lower(), open_member)


def _lines_of(path: Path, name: str, kind: str, open_it: Callable[[], IO[bytes]]) -> Table:
    if kind in LINES:
        with open_it() as file:
            keys = dict.fromkeys(key for document in islice(_documents(path, file), _NAMED) for key in document)
        return Table(name, path, tuple(keys), lambda wanted: _json_batches(path, open_it, wanted))
    with open_it() as file:
        first = file.read(_BLOCK)
    encoding = "utf-16" if first[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    header = first.decode(encoding, "replace").splitlines()[:1]
    if not header or not header[0].strip():
        return Table(name, path, (), lambda _: iter(()))  # as programs leave parts without rows
    delimiter = max(_DELIMITERS, key=lambda one: len(cells_of(header[0], one)))
    columns = tuple(cell.strip() for cell in cells_of(header[0], delimiter))
    if len(set(columns)) < len(columns):
        repeated = sorted({one for one in columns if columns.count(one) > 1})
        raise DataError("the header names a column twice", file=name, column=", ".join(repeated))

    def read(wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with _readable(path), open_it() as file:
            reader = pacsv.open_csv(
                file,
                pacsv.ReadOptions(
                    column_names=list(columns),
                    skip_rows=1,
                    block_size=_BLOCK,
                    use_threads=False,
                    encoding="utf16" if encoding == "utf-16" else "utf8",
                ),
                pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
                pacsv.ConvertOptions(
                    column_types=dict.fromkeys(columns, pa.string()),
                    include_columns=list(wanted),
                    strings_can_be_null=False,
                ),
            )
            yield from reader

    return Table(name, path, columns, read)


def _arrow(path: Path, name: str) -> Table:
    def opened() -> Any:
        source = pa.OSFile(str(path))
        try:
            return pa.ipc.open_stream(source)
        except pa.ArrowInvalid:
            file = pa.ipc.open_file(pa.OSFile(str(path)))
            batches = (file.get_batch(number) for number in range(file.num_record_batches))
            return pa.RecordBatchReader.from_batches(file.schema, batches)

    def read(wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with _readable(path):
            for batch in opened():
                yield batch.select(list(wanted))

    schema = opened().schema
    declared = {one: said for one in schema.names if (said := declared_labels(schema, one))}
    return Table(name, path, tuple(schema.names), read, declared)


def _documents(path: Path, file: IO[bytes]) -> Iterator[dict[str, Any]]:
    number = 0
    while line := file.readline(_LONGEST_LINE):
        number += 1
        if not line.strip():
            continue
        try:
            document = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
        except (ValueError, RecursionError) as error:
            raise DataError(f"a line is no JSON ({error})", file=path, rows=[f"line {number}"]) from error
        if not isinstance(document, dict):
            raise DataError("a line is no JSON object", file=path, rows=[f"line {number}"])
        yield document


def _json_batches(path: Path, open_it: Callable[[], IO[bytes]], wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
    columns: list[list[str | None]] = [[] for _ in wanted]

    def batch() -> pa.RecordBatch:
        made = pa.record_batch([pa.array(column, pa.large_string()) for column in columns], names=list(wanted))
        for column in columns:
            column.clear()
        return made

    with _readable(path), open_it() as file:
        for document in _documents(path, file):
            for column, name in zip(columns, wanted, strict=True):
                column.append(_text(document.get(name)))
            if columns and len(columns[0]) == BATCH_ROWS:
                yield batch()
    yield batch()


def _text(value: Any) -> str | None:
    """Return a value of JSON as text: lists of text, such as bullet points, as lines."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return "\n".join(value)
    return json.dumps(value, ensure_ascii=False)


class _Limited(io.RawIOBase):
    """A stream that ends with an error where more comes out of it than may."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, most: int) -> None:
        self._stream, self._left, self._most = stream, most, most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = self._stream.read(len(buffer))
        self._left -= len(found)
        if self._left < 0:
            raise ValueError(f"it unpacks to more than {self._most / 2**30:.3g} GiB, the setting data_max_gib")
        buffer[: len(found)] = found
        return len(found)

    def close(self) -> None:
        self._stream.close()
        super().close()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        advice = "write the table again, in UTF-8, with cells in quotation marks that hold the separator"
        raise DataError(f"the table cannot be read ({reason})", file=path, advice=advice) from error
