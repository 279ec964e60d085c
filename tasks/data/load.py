"""Read an ESCI folder as a data set with its data version.

Two kinds of trouble are kept apart. What makes a folder unreadable (a file, a column or a type that is not there) is
raised by :func:`load_esci`. What makes its rows wrong (an unknown label, a product that no catalogue has) is loaded as
it stands and found by `esci_tournament.tasks.data.validate`, which reports all of it at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from esci_tournament.registry.errors import DataError
from esci_tournament.registry.labels import LABELS
from esci_tournament.tasks.data.arrays import catalogue_keys, category, keys_of, rows_in, text
from esci_tournament.tasks.data.dataset import LOCALES, Dataset
from esci_tournament.tasks.data.fingerprint import ColumnFingerprint, data_version
from esci_tournament.tasks.data.layout import (
    COLUMNS,
    EDGES_FILE,
    EVENTS_FILE,
    EXAMPLES_FILE,
    LOG_FILES,
    PANDAS_INDEX,
    PRODUCTS_FILE,
    SPLITS,
    Kind,
)
from esci_tournament.tasks.data.logs import LogLimits, Logs
from esci_tournament.tasks.data.ubi import read_ubi

Progress = Callable[[float, str], None]
BATCH_ROWS = 65_536
# What PyArrow raises on a damaged file; UnicodeDecodeError, a ValueError, for a column's name
_DAMAGE = (pa.ArrowException, OSError, ValueError, TypeError, LookupError, ArithmeticError)
_ARROW: dict[Kind, pa.DataType] = {
    "integer": pa.int64(),
    "number": pa.float64(),
    "text": pa.large_string(),
    "time": pa.timestamp("us"),
}
_WORDS: dict[Kind, str] = {"integer": "an integer", "number": "a number", "text": "text", "time": "a timestamp"}


@dataclass(frozen=True)
class _Table:
    """One file in memory: large_string, int64, double or timestamp[us] arrays without missing values."""

    columns: dict[str, pa.Array]
    fingerprints: dict[str, str]


def load_esci(
    folder: Path,
    progress: Progress = lambda share, doing: None,
    limits: LogLimits | None = None,
) -> Dataset:
    """Read a folder with the official file names and columns, and the logs of behaviour that stand beside them.

    Logs are `behaviour_events.parquet` and files in the UBI schema (`esci_tournament.tasks.data.ubi`), both of which
    become events, and `behaviour_edges.parquet`, a plain edge table: `query` or `source_product_id` (the other one
    missing), `locale`, `product_id`, `relation` (one of :data:`~esci_tournament.tasks.data.layout.TABLE_RELATIONS`),
    `weight` (how often), `timestamp`. An edge between two products names no query, so it cannot be held out with one:
    it must come from what customers did, never from judgements.

    Rows of the official files are kept as they are, in file order, for `validate` to judge: an unknown label becomes
    -1, an unknown locale, split or action stays as a category of its own, and a pair whose (product, locale) is in no
    catalogue gets `product` -1. Rows of logs that may not count are left out and counted in `left_out`. A log with an
    action, a locale or a relation that is not known stays whole: `validate` refuses it and names its rows. Text
    columns stay Arrow-backed.

    Args:
        folder: The folder.
        progress: Called with the share done in [0, 1] and the file that is read.
        limits: Which rows of logs count; default: :class:`~esci_tournament.tasks.data.logs.LogLimits`.

    Returns:
        The data set.

    Raises:
        DataError: If the folder or a file is missing, empty, truncated or no parquet, or if a column is missing, not
            known or of a wrong type, or a line of a UBI file cannot be read.
    """
    folder = Path(folder)
    if problems := structural_problems(folder):
        first = problems[0]
        if len(problems) > 1:
            first.args = (f"{first.args[0]}; {len(problems) - 1} more found by `tournament data check`",)
        raise first
    names = [name for name in COLUMNS if (folder / name).is_file()]
    total = sum((folder / name).stat().st_size for name in names)
    done, tables = 0, {}
    for name in names:
        size = (folder / name).stat().st_size
        tables[name] = _read(folder / name, COLUMNS[name], progress, done / total, size / total)
        done += size
    fingerprints = {name: table.fingerprints for name, table in tables.items()}
    catalogue = catalogue_keys(tables[PRODUCTS_FILE].columns)
    logs = Logs(catalogue, limits or LogLimits())
    if EVENTS_FILE in tables:
        logs.add_events(tables.pop(EVENTS_FILE).columns)
    for ubi in read_ubi(folder, logs.limits.actions):
        fingerprints[ubi.file] = logs.add_ubi(ubi)
    edges = logs.edges(tables.pop(EDGES_FILE).columns) if EDGES_FILE in tables else None
    dataset = Dataset(
        pairs=_pairs(tables.pop(EXAMPLES_FILE).columns, catalogue),
        products=_products(tables.pop(PRODUCTS_FILE).columns),
        events=logs.events(),
        version=data_version(fingerprints, logs.chosen),
        source=folder,
        edges=edges,
        left_out=tuple(logs.left_out),
    )
    progress(1.0, "loaded")
    return dataset


def structural_problems(folder: Path) -> list[DataError]:
    """Return all that keeps a folder from being read, as far as footers and schemas tell.

    Args:
        folder: The folder; no rows are read.

    Returns:
        One error per problem, not raised, in the order of the files; [] for a folder that can be read.
    """
    if not folder.is_dir():
        advice = f"name a folder that holds {EXAMPLES_FILE} and {PRODUCTS_FILE}"
        return [DataError("the data folder does not exist or is no folder", file=folder, advice=advice)]
    problems: list[DataError] = []
    for name, columns in COLUMNS.items():
        path = folder / name
        if not path.is_file():
            if name not in LOG_FILES:
                advice = (
                    "`tournament data download` fetches the official files, `tournament data synthesize` makes some"
                )
                problems.append(DataError("a file is missing", file=path, advice=advice))
            continue
        try:
            with pq.ParquetFile(path) as file:
                problems += _schema_problems(path, file.schema_arrow, columns)
                if file.metadata.num_rows == 0:
                    problems.append(DataError("the file is empty", file=path, count=0, advice="it must hold rows"))
        except _DAMAGE as error:
            problems.append(_unreadable(path, error))
    return problems


def _schema_problems(path: Path, schema: pa.Schema, columns: Mapping[str, Kind]) -> list[DataError]:
    problems = []
    if missing := [name for name in columns if name not in schema.names]:
        advice = f"the file has the columns {', '.join(schema.names)}"
        problems.append(DataError("a column is missing", file=path, column=", ".join(missing), advice=advice))
    if extra := [name for name in schema.names if name not in columns and name != PANDAS_INDEX]:
        advice = f"remove it; known columns are {', '.join(columns)}"
        problems.append(DataError("a column is not known", file=path, column=", ".join(extra), advice=advice))
    if repeated := sorted({name for name in schema.names if schema.names.count(name) > 1}):
        problems.append(DataError("a column stands twice", file=path, column=", ".join(repeated)))
        return problems
    for name, kind in columns.items():
        if name not in schema.names:
            continue
        found = kind_of(schema.field(name).type)
        if not is_of_kind(found, kind):
            advice = f"it is {schema.field(name).type} and must be {_WORDS[kind]}"
            problems.append(DataError("a column has the wrong type", file=path, column=name, advice=advice))
    return problems


def kind_of(found: pa.DataType) -> str:
    """Return the kind of value that a column of an Arrow type has.

    Args:
        found: The type; of a dictionary, that of its values counts.

    Returns:
        A :data:`~esci_tournament.tasks.data.layout.Kind`, "missing" for a column without a single value, else Arrow's
        own name of the type.

    Example:
        >>> kind_of(pa.int8()), kind_of(pa.dictionary(pa.int32(), pa.string())), kind_of(pa.bool_())
        ('integer', 'text', 'bool')
    """
    if pa.types.is_dictionary(found):
        found = found.value_type
    if pa.types.is_integer(found):
        return "integer"
    if pa.types.is_floating(found):
        return "number"
    if pa.types.is_timestamp(found):
        return "time"
    if pa.types.is_string(found) or pa.types.is_large_string(found) or pa.types.is_string_view(found):
        return "text"
    return "missing" if pa.types.is_null(found) else str(found)


def is_of_kind(found: str, kind: str) -> bool:
    """Return whether a column of one kind can be read as another.

    Args:
        found: What :func:`kind_of` returns.
        kind: The kind that is wanted.

    Returns:
        True for the same kind, for a column without a value where text is wanted, and for an integer where a number is.
    """
    return found == kind or (found, kind) in (("missing", "text"), ("integer", "number"))


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    advice = "fetch or write the file again"
    return DataError(f"the file is truncated, damaged or no parquet ({reason})", file=path, advice=advice)


def _read(path: Path, columns: Mapping[str, Kind], progress: Progress, start: float, share: float) -> _Table:
    """Read a file batch by batch; at most one column is held twice, while its batches are joined."""
    batches: dict[str, list[pa.Array]] = {name: [] for name in columns}
    fingerprints = {name: ColumnFingerprint() for name in columns}
    row = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=list(columns)):
                for name, kind in columns.items():
                    array = _canonical(batch.column(name), kind, path, name, row)
                    fingerprints[name].update(array)
                    batches[name].append(array.fill_null("") if kind == "text" else array)
                row += batch.num_rows
                progress(start + share * min(1.0, row / file.metadata.num_rows), f"reading {path.name}")
    except _DAMAGE as error:
        raise _unreadable(path, error) from error
    joined = {name: pa.concat_arrays(batches.pop(name)) for name in columns}
    return _Table(joined, {name: fingerprint.hexdigest() for name, fingerprint in fingerprints.items()})


def _canonical(array: pa.Array, kind: Kind, path: Path, name: str, first_row: int) -> pa.Array:
    """Return a column of a batch in the one type that its kind has here; missing values stay for text alone."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    try:
        array = array.cast(_ARROW[kind])
        array.validate(full=True)
    except pa.ArrowInvalid as error:
        reason = str(error).splitlines()[0]
        batch = [f"somewhere in rows {first_row} to {first_row + len(array) - 1}"]
        raise DataError(
            f"a value cannot be read as {_WORDS[kind]} ({reason})", file=path, column=name, rows=batch
        ) from error
    if kind != "text" and array.null_count:
        rows = np.flatnonzero(pc.is_null(array).to_numpy(zero_copy_only=False)) + first_row
        shown = [f"row {number}" for number in rows[:5]]
        advice = "every row needs a value here"
        raise DataError("values are missing", file=path, column=name, rows=shown, count=len(rows), advice=advice)
    return array


def _pairs(columns: dict[str, pa.Array], catalogue: pa.Array) -> pd.DataFrame:
    locale = columns["product_locale"]
    label = pc.fill_null(pc.index_in(columns["esci_label"], pa.array(LABELS, pa.large_string())), -1)
    frame = {
        "example_id": columns["example_id"].to_numpy(),
        "query_id": columns["query_id"].to_numpy(),
        "query": text(columns["query"]),
        "query_key": keys_of(columns["query"], locale),
        "product_id": text(columns["product_id"]),
        "product": rows_in(catalogue, columns["product_id"], locale),
        "locale": category(locale, LOCALES),
        "label": label.to_numpy(zero_copy_only=False).astype(np.int8),
        "split": category(columns["split"], SPLITS),
    }
    return pd.DataFrame(frame)


def _products(columns: dict[str, pa.Array]) -> pd.DataFrame:
    frame = {
        "product_id": text(columns["product_id"]),
        "locale": category(columns["product_locale"], LOCALES),
        "title": text(columns["product_title"]),
        "brand": text(columns["product_brand"]),
        "color": text(columns["product_color"]),
        "bullets": text(columns["product_bullet_point"]),
        "description": text(columns["product_description"]),
    }
    return pd.DataFrame(frame, copy=False)
