"""Read the documents of UBI files, in the shapes in which search engines and their tools export them.

| shape | what a document is |
|---|---|
| newline-delimited JSON | a line |
| bulk format | a line after one such as {"index": {...}}, which is passed over |
| export of a tool such as elasticdump, or of a search | the `_source` of a line, or of each hit |
| JSON | an entry of the list |
| CSV with a header | a row; dots in the names of columns say what stands inside of what |

Each may be compressed with gzip.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, product
from pathlib import Path
from typing import IO, Any, cast

from esci_tournament.registry.delimited import delimiter_of
from esci_tournament.registry.errors import DataError

STEMS = ("ubi_queries", "ubi_events", "ubi_queries_events")
SHAPES = (".ndjson", ".jsonl", ".json", ".csv")
NAMES = tuple(f"{stem}{shape}{packed}" for stem, shape, packed in product(STEMS, SHAPES, ("", ".gz")))

_BULK = frozenset({"index", "create"})
_WRAPPED = "_source"
_LONGEST_LINE = 64 * 2**20  # bytes
_LARGEST_DOCUMENT = 1024 * 2**20  # bytes of a JSON file that is one document
_DAMAGE = (OSError, EOFError, zlib.error)  # of a file, compressed or not


def ubi_files(folder: Path) -> list[Path]:
    """Return the UBI files of a folder, queries before events.

    Args:
        folder: The folder.

    Returns:
        At most one file for each of :data:`STEMS`, whatever its shape.

    Raises:
        DataError: If a log is there in two shapes: it is not known which of them counts.
    """
    found = []
    for stem in STEMS:
        names = [name for name in NAMES if name.split(".", 1)[0] == stem and (folder / name).is_file()]
        if len(names) > 1:
            advice = f"keep one of {' and '.join(names)}: an event must not count twice"
            raise DataError("a log is there in two files", file=folder / names[0], advice=advice)
        found += [folder / name for name in names]
    return found


def unit_of(path: Path) -> str:
    """Return what the numbers of a file's documents count.

    Args:
        path: One of :func:`ubi_files`.

    Returns:
        "line", or "document" for a JSON list.

    Raises:
        DataError: If the file cannot be read.
    """
    if not path.name.removesuffix(".gz").endswith(".json"):
        return "line"
    with _readable(path), _opened(path) as file:
        return "document" if _is_one_document(file) else "line"


def documents(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the documents of a file and where they stand.

    Args:
        path: One of :func:`ubi_files`.

    Yields:
        The number, from 1, of the line or document (:func:`unit_of`), and the document, without what an export wraps
        around it.

    Raises:
        DataError: If the file cannot be read, or is not of the shape that its name says.
    """
    unit = unit_of(path)
    with _readable(path), _opened(path) as file:
        if path.name.removesuffix(".gz").endswith(".csv"):
            yield from _rows(path, file)
        elif unit == "document":
            yield from _entries(path, file)
        else:
            yield from _lines(path, file)


def broken(path: Path, place: str, problem: str, advice: str = "correct or remove it") -> DataError:
    """Return the error that a document cannot be read.

    Args:
        path: The file.
        place: Where the document stands: "line 7", "document 3".
        problem: What is wrong with it: what it is, or a sentence that begins with "the".
        advice: What to do.

    Returns:
        The error, not raised.
    """
    sentence = problem if problem.startswith("the ") else f"a {place.split(' ')[0]} is {problem}"
    return DataError(sentence, file=path, rows=[place], advice=advice)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise DataError(f"the file cannot be read ({getattr(error, 'strerror', None) or error})", file=path) from error


def _opened(path: Path) -> IO[bytes]:
    if path.name.endswith(".gz"):
        return cast("IO[bytes]", gzip.open(path, "rb"))
    return path.open("rb")


def _lines(path: Path, file: IO[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    while line := file.readline(_LONGEST_LINE):
        number += 1
        if len(line) == _LONGEST_LINE:
            raise broken(path, f"line {number}", f"longer than {_LONGEST_LINE:,} bytes")
        if not line.strip():
            continue
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")  # Windows programs begin a file of text with it
        document = _parsed(path, f"line {number}", line)
        if len(document) != 1 or not _BULK.issuperset(document):
            yield number, _unwrapped(document)


def _parsed(path: Path, place: str, text: bytes) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise broken(path, place, f"no JSON ({error})") from error
    if not isinstance(document, dict):
        raise broken(path, place, f"no JSON object but {type(document).__name__}")
    return document


def _is_one_document(file: IO[bytes]) -> bool:
    """Tell whether a file is one JSON document, and not one a line; it is read from its beginning afterwards."""
    line = file.readline(_LONGEST_LINE)
    while line and not line.strip():
        line = file.readline(_LONGEST_LINE)
    file.seek(0)
    try:
        first = json.loads(line or b"{}")
        return not isinstance(first, dict) or isinstance(first.get("hits"), dict)
    except (ValueError, RecursionError):
        return True


def _entries(path: Path, file: IO[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
    text = file.read(_LARGEST_DOCUMENT + 1)
    if len(text) > _LARGEST_DOCUMENT:
        advice = "write one document a line (.ndjson), which is read piece by piece: jq -c '.[]'"
        raise DataError(f"one JSON document of more than {_LARGEST_DOCUMENT:,} bytes", file=path, advice=advice)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"the file is no JSON ({error})", file=path, advice="write the file again") from error
    if isinstance(found, dict) and isinstance(found.get("hits"), dict):  # the answer of a search
        found = found["hits"].get("hits")
    entries = [found] if isinstance(found, dict) else found
    if not isinstance(entries, list):
        raise DataError(f"the file is no list of documents but {type(found).__name__}", file=path)
    for number, document in enumerate(entries, 1):
        if not isinstance(document, dict):
            raise broken(path, f"document {number}", f"no JSON object but {type(document).__name__}")
        yield number, _unwrapped(document)


def _unwrapped(document: dict[str, Any]) -> dict[str, Any]:
    inner = document.get(_WRAPPED)
    return inner if isinstance(inner, dict) else document


def _rows(path: Path, file: IO[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = io.TextIOWrapper(file, "utf-8-sig", newline="")
    number, names = 1, list[str]()
    try:
        header = lines.readline(_LONGEST_LINE)
        reader = csv.reader(chain([header], lines), delimiter=delimiter_of(header, "query_id"), strict=True)
        for values in reader:
            number = reader.line_num
            place = f"line {number}"
            if not names:
                names = values
                if len(set(names)) < len(names):
                    raise broken(path, place, "the header names a column twice")
            elif len(values) != len(names):
                if values:  # else it is blank
                    raise broken(path, place, f"of {len(values)} values; the header has {len(names)}")
            else:
                yield number, _unwrapped(_nested(path, place, names, values))
    except (csv.Error, UnicodeError) as error:
        raise broken(path, f"line {number}", f"no CSV in UTF-8 ({error})") from error


def _nested(path: Path, place: str, names: list[str], values: list[str]) -> dict[str, Any]:
    """Return a row as a document; an empty cell is no value, and JSON in a cell is read."""
    document: dict[str, Any] = {}
    for name, value in zip(names, values, strict=True):
        *above, key = name.split(".")
        owner = document
        for outer in above:
            inner = owner.setdefault(outer, {})
            if not isinstance(inner, dict):  # a cell of its own says something else
                break
            owner = inner
        else:
            if value:
                owner.setdefault(key, _parsed(path, place, value.encode()) if value.startswith("{") else value)
    return document
