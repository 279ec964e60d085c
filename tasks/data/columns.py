"""Convert the columns of a data file, in whatever type its writer chose, to the one type that each kind has here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from esci_tournament.registry.errors import DataError
from esci_tournament.tasks.data.layout import YEARS, Kind
from esci_tournament.tasks.data.parquet_files import Parts

ARROW: dict[Kind, pa.DataType] = {
    "integer": pa.int64(),
    "number": pa.float64(),
    "text": pa.large_string(),
    "time": pa.timestamp("us"),
}
WORDS: dict[Kind, str] = {"integer": "an integer", "number": "a number", "text": "text", "time": "a timestamp"}
FLAGS = ("small_version", "large_version")  # integers that are also written as true and false
_EXACT = 2**53  # from here on, numbers of double precision skip integers

_INDEX = re.compile(r"__index_level_\d+__|Unnamed: \d+(_level_\d+)?|")  # always an index of pandas, also in its CSV
_COUNTERS = frozenset({"index", "level_0", "row_nr", "row_index", "row_number", "rownum"})  # an index if they count


def kind_of(found: pa.DataType) -> str:
    """Return the kind of value that a column of an Arrow type has.

    Args:
        found: The type; of a dictionary or of run-ends, that of its values counts.

    Returns:
        A :data:`~esci_tournament.tasks.data.layout.Kind`, "missing" for a column without a single value, else Arrow's
        own name of the type.

    Example:
        >>> kind_of(pa.int8()), kind_of(pa.dictionary(pa.int32(), pa.string())), kind_of(pa.bool_())
        ('integer', 'text', 'bool')
        >>> kind_of(pa.decimal128(20, 0)), kind_of(pa.date32()), kind_of(pa.string_view()), kind_of(pa.binary())
        ('number', 'time', 'text', 'text')
    """
    types = pa.types
    if types.is_dictionary(found) or types.is_run_end_encoded(found):
        found = found.value_type
    if types.is_integer(found):
        return "integer"
    if types.is_floating(found) or types.is_decimal(found):
        return "number"
    if types.is_timestamp(found) or types.is_date(found):
        return "time"
    if types.is_string(found) or types.is_large_string(found) or types.is_string_view(found):
        return "text"
    if types.is_binary(found) or types.is_large_binary(found) or types.is_binary_view(found):
        return "text"  # in UTF-8, as writers without a type for text write it
    return "missing" if types.is_null(found) else str(found)


def is_of_kind(found: str, kind: str, column: str = "") -> bool:
    """Return whether a column of one kind may be read as another; its values decide whether it can.

    Args:
        found: What :func:`kind_of` returns.
        kind: The kind that is wanted.
        column: Name of the column.

    Returns:
        True for the same kind, for a column without a value or of integers (ids) where text is wanted, for integers and
        other numbers in place of each other, for numbers and text (since 1970, ISO 8601) as times, and for true and
        false in :data:`FLAGS`.

    Example:
        >>> is_of_kind("number", "integer"), is_of_kind("text", "integer"), is_of_kind("bool", "integer", "query_id")
        (True, False, False)
    """
    readable = {("missing", "text"), ("integer", "text"), ("integer", "number"), ("number", "integer")}
    readable |= {("integer", "time"), ("number", "time"), ("text", "time")}
    return found == kind or (found, kind) in readable or (found == "bool" and column in FLAGS)


def canonical(array: pa.Array, kind: Kind, path: Path, name: str, first_row: int) -> pa.Array:
    """Return a column of a batch in the one type that its kind has here.

    Times of a zone become UTC. Nanoseconds are cut to microseconds.

    Args:
        array: The column (n,), of a kind that may be read so (:func:`is_of_kind`).
        kind: The kind.
        path: The file, for messages.
        name: Name of the column.
        first_row: Number of its first row, from 0.

    Returns:
        large_string, int64, double or timestamp[us] (n,); missing values stay in text alone.

    Raises:
        DataError: If a value is missing where there must be one, or cannot be read as that kind.
    """
    array = plain(array)
    try:
        if kind == "integer" and pa.types.is_floating(array.type):
            array = _whole(array, path, name, first_row)
        elif kind == "time":
            array = _moments(array)
        array = array.cast(ARROW[kind])
        array.validate(full=True)
    except pa.ArrowInvalid as error:
        reason = str(error).splitlines()[0]
        batch = [f"somewhere in rows {first_row} to {first_row + len(array) - 1}"]
        raise DataError(
            f"a value cannot be read as {WORDS[kind]} ({reason})", file=path, column=name, rows=batch
        ) from error
    if kind != "text" and array.null_count:
        rows = np.flatnonzero(pc.is_null(array).to_numpy(zero_copy_only=False)) + first_row
        shown = [f"row {number}" for number in rows[:5]]
        advice = "every row needs a value here"
        raise DataError("values are missing", file=path, column=name, rows=shown, count=len(rows), advice=advice)
    return array


def plain(array: pa.Array) -> pa.Array:
    """Return an array without the encoding of dictionaries and run-ends."""
    if pa.types.is_dictionary(array.type):
        return array.dictionary_decode()
    return pc.run_end_decode(array) if pa.types.is_run_end_encoded(array.type) else array


def index_columns(table: Parts, names: Sequence[str]) -> list[str]:
    """Return which columns number the rows, as pandas and polars write the index of a frame.

    Args:
        table: The file.
        names: Columns of it that are not known.

    Returns:
        Those that only an index is called, that pandas' own record of the file calls its index, or that are called
        "index", "row_nr" and the like and hold ascending integers.

    Raises:
        DataError: If the file is damaged.
    """
    # A range that stands in no column is recorded as a table
    recorded = {
        one
        for schema in table.schemas
        for one in (schema.pandas_metadata or {}).get("index_columns", [])
        if isinstance(one, str)
    }
    found = []
    for name in names:
        counts = name.casefold() in _COUNTERS and _ascends(table, name)
        if counts or _INDEX.fullmatch(name) or name in recorded:
            found.append(name)
    return found


def declared_labels(schema: pa.Schema, column: str) -> dict[str, str]:
    """Return what the numbers of a column mean, as the library `datasets` records it in a file that it writes.

    Args:
        schema: Schema of the file.
        column: Name of the column.

    Returns:
        Number -> name of its class; {} where nothing is recorded.
    """
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        feature = features[column]
        named = feature["_type"] == "ClassLabel" and feature["names"]
        return {str(number): str(name) for number, name in enumerate(named or ())}
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}


def distinct(array: pa.Array, meaning: Mapping[object, str]) -> pa.Array:
    """Return text in place of each value, by a table of the distinct ones.

    Args:
        array: Any type that can be encoded as a dictionary (n,); missing values stay.
        meaning: Value -> text; one that it lacks is written as it is.

    Returns:
        large_string (n,).
    """
    encoded = plain(array).dictionary_encode()
    words = [None if value is None else meaning.get(value, str(value)) for value in encoded.dictionary.to_pylist()]
    return pa.array(words, pa.large_string()).take(encoded.indices)


def _whole(array: pa.Array, path: Path, name: str, first_row: int) -> pa.Array:
    # pandas keeps integers so when one of a column is missing
    values = array.cast(pa.float64()).to_numpy(zero_copy_only=False)
    with np.errstate(invalid="ignore"):
        wrong = np.flatnonzero(~np.isnan(values) & ((values != np.floor(values)) | (np.abs(values) > _EXACT)))
    if len(wrong):
        rows = [f"row {row + first_row}: {float(values[row])!r}" for row in map(int, wrong[:5])]
        advice = f"it is {array.type} and must be an integer; numbers with a fraction, or of 16 digits, are none"
        raise DataError("a column has the wrong type", file=path, column=name, rows=rows, advice=advice)
    return pc.if_else(pc.is_nan(array.cast(pa.float64())), pa.scalar(None, pa.float64()), array.cast(pa.float64()))


def _moments(array: pa.Array) -> pa.Array:
    """Return times as timestamps in UTC; a number is of the unit in which it is a plausible time, else of 1970."""
    kind = kind_of(array.type)
    if kind == "text":
        array = array.cast(pa.large_string())
        try:
            return array.cast(pa.timestamp("us"))
        except pa.ArrowInvalid:  # an offset, or "Z"
            return array.cast(pa.timestamp("us", "UTC")).cast(pa.timestamp("us"))
    if kind in ("integer", "number"):
        numbers = array.cast(pa.float64() if kind == "number" else pa.int64()).to_numpy(zero_copy_only=False)
        seconds = [int(np.datetime64(str(year), "s").astype(np.int64)) for year in YEARS]
        found = np.zeros(len(numbers), np.int64)
        with np.errstate(invalid="ignore"):
            for digits in (0, 3, 6, 9):  # seconds, milliseconds, microseconds, nanoseconds: no number is in two
                rows = (numbers >= seconds[0] * 10**digits) & (numbers < seconds[1] * 10**digits)
                scaled = numbers[rows] * 10 ** (6 - digits) if digits <= 6 else numbers[rows] // 10 ** (digits - 6)
                found[rows] = scaled.astype(np.int64)
        return pa.array(found, mask=pc.is_null(array, nan_is_null=True).to_numpy(zero_copy_only=False)).cast(
            pa.timestamp("us")
        )
    if pa.types.is_timestamp(array.type) and array.type.unit == "ns":
        return array.cast(pa.timestamp("us", array.type.tz), safe=False)
    return array


def _ascends(table: Parts, name: str) -> bool:
    part, last = None, None
    for here, batch in table.batches([name]):
        values = plain(batch.column(0))
        if not pa.types.is_integer(values.type) or values.null_count:
            return False
        if not len(values):
            continue
        numbers = values.to_numpy(zero_copy_only=False)
        if not (np.diff(numbers.astype(np.float64)) > 0).all() or (
            here == part and last is not None and numbers[0] <= last
        ):
            return False
        part, last = here, numbers[-1]
    return True
