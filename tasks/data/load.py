"""Read an ESCI folder as a data set with its data version.

Two kinds of trouble are kept apart. What makes a folder unreadable (a file, a column or a type that is not there) is
raised by :func:`load_esci`. What makes its rows wrong (an unknown label, a product that no catalogue has) is loaded as
it stands and found by `esci_tournament.tasks.data.validate`, which reports all of it at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from esci_tournament.registry.errors import DataError
from esci_tournament.registry.labels import LABELS
from esci_tournament.tasks.data.arrays import catalogue_keys, category, keys_of, rows_in, text
from esci_tournament.tasks.data.columns import (
    WORDS,
    canonical,
    declared_labels,
    index_columns,
    is_of_kind,
    kind_of,
    plain,
)
from esci_tournament.tasks.data.dataset import LOCALES, Dataset
from esci_tournament.tasks.data.fingerprint import ColumnFingerprint, data_version
from esci_tournament.tasks.data.layout import (
    COLUMNS,
    EDGES_FILE,
    EVENTS_FILE,
    EXAMPLES_FILE,
    LABEL_COLUMN,
    LOG_FILES,
    PRODUCTS_FILE,
    SPLITS,
    Kind,
)
from esci_tournament.tasks.data.logs import LogLimits, Logs
from esci_tournament.tasks.data.parquet_files import Parts, bytes_of, is_there, opened
from esci_tournament.tasks.data.reading import NUMBERED_LABELS, Reading
from esci_tournament.tasks.data.ubi import read_ubi

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class _Table:
    """One file in memory: large_string, int64, double or timestamp[us] arrays without missing values."""

    columns: dict[str, pa.Array]
    fingerprints: dict[str, str]


def load_esci(
    folder: Path,
    progress: Progress = lambda share, doing: None,
    limits: LogLimits | None = None,
    reading: Reading | None = None,
) -> Dataset:
    """Read a folder with the official file names and columns, and the logs of behaviour that stand beside them.

    Logs are `behaviour_events.parquet` and files in the UBI schema (`esci_tournament.tasks.data.ubi`), both of which
    become events, and `behaviour_edges.parquet`, a plain edge table: `query` or `source_product_id` (the other one
    missing), `locale`, `product_id`, `relation` (one of :data:`~esci_tournament.tasks.data.layout.TABLE_RELATIONS`),
    `weight` (how often), `timestamp`. An edge between two products names no query, so it cannot be held out with one:
    it must come from what customers did, never from judgements.

    Each parquet file may be a folder of part files (`esci_tournament.tasks.data.parquet_files`); the data version is
    that of one file with the same rows.

    Rows of the official files are kept as they are, in file order, for `validate` to judge: a label that is neither a
    letter nor a word for it becomes -1, an unknown locale, split or action stays as a category of its own, and a pair
    whose (product, locale) is in no catalogue gets `product` -1. Rows of logs that may not count are left out and
    counted in `left_out`. A log with an action, a locale or a relation that is not known stays whole: `validate`
    refuses it and names its rows. Text columns stay Arrow-backed.

    Args:
        folder: The folder.
        progress: Called with the share done in [0, 1] and the file that is read.
        limits: Which rows of logs count; default: :class:`~esci_tournament.tasks.data.logs.LogLimits`.
        reading: What settings say of columns and labels; default: :class:`~esci_tournament.tasks.data.reading.Reading`.

    Returns:
        The data set.

    Raises:
        DataError: If the folder or a file is missing, empty, truncated or no parquet, or if a column is missing, not
            known or of a wrong type, or a line of a UBI file cannot be read.
    """
    folder, reading = Path(folder), reading or Reading()
    if problems := structural_problems(folder, reading):
        first = problems[0]
        if len(problems) > 1:
            first.args = (f"{first.args[0]}; {len(problems) - 1} more found by `tournament data check`",)
        raise first
    sizes = {name: bytes_of(folder / name) for name in COLUMNS if is_there(folder / name)}
    total, done, tables = sum(sizes.values()), 0, {}
    for name, size in sizes.items():
        tables[name] = _read(folder / name, COLUMNS[name], reading, progress, done / total, size / total)
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


def structural_problems(folder: Path, reading: Reading | None = None) -> list[DataError]:
    """Return all that keeps a folder from being read, as far as footers and schemas tell.

    Args:
        folder: The folder; no rows are read, but those of a column that may be an index.
        reading: What settings say of columns and labels; default: :class:`~esci_tournament.tasks.data.reading.Reading`.

    Returns:
        One error per problem, not raised, in the order of the files; [] for a folder that can be read.
    """
    if not folder.is_dir():
        advice = f"name a folder that holds {EXAMPLES_FILE} and {PRODUCTS_FILE}"
        return [DataError("the data folder does not exist or is no folder", file=folder, advice=advice)]
    problems: list[DataError] = []
    for name, columns in COLUMNS.items():
        path = folder / name
        if not is_there(path):
            if name not in LOG_FILES:
                advice = (
                    "`tournament data download` fetches the official files, `tournament data import` writes them from "
                    "other tables, `tournament data synthesize` makes some"
                )
                problems.append(DataError("a file is missing", file=path, advice=advice))
            continue
        try:
            table = opened(path)
            problems += _schema_problems(table, columns, reading or Reading())
            if table.rows == 0:
                problems.append(DataError("the file is empty", file=path, count=0, advice="it must hold rows"))
        except DataError as problem:
            problems.append(problem)
    return problems


def _schema_problems(table: Parts, columns: Mapping[str, Kind], reading: Reading) -> list[DataError]:
    """Return what is wrong with the columns of a table; parts that are alike are told once."""
    problems = []
    seen: set[frozenset[tuple[str, str]]] = set()
    names = set(table.schema.names)
    for part, schema in zip(table.parts, table.schemas, strict=True):
        if set(schema.names) != names:
            advice = f"write all parts alike; {table.parts[0].path.name} has {', '.join(table.schema.names)}"
            differs = ", ".join(sorted(set(schema.names) ^ names))
            problems.append(
                DataError("a part has other columns than the first one", file=part.path, column=differs, advice=advice)
            )
            return problems
        kinds = frozenset((field.name, kind_of(field.type)) for field in schema)
        if kinds not in seen:
            problems += _problems_of(table.path if not seen else part.path, schema, columns, reading, not seen, table)
            seen.add(kinds)
    return problems


def _problems_of(
    path: Path, schema: pa.Schema, columns: Mapping[str, Kind], reading: Reading, first: bool, table: Parts
) -> list[DataError]:
    problems = []
    if first and (missing := [name for name in columns if name not in schema.names]):
        advice = (
            f"the file has the columns {', '.join(schema.names)}; `tournament data import` writes the official files "
            "from other tables"
        )
        problems.append(DataError("a column is missing", file=path, column=", ".join(missing), advice=advice))
    if first and (extra := _extra_columns(table, columns, reading)):
        advice = (
            f"remove it, or set data_extra_columns = {_toml(extra)} in tournament.toml (TOURNAMENT_DATA_EXTRA_COLUMNS);"
            f" known columns are {', '.join(columns)}"
        )
        problems.append(DataError("a column is not known", file=path, column=", ".join(extra), advice=advice))
    if repeated := sorted({name for name in schema.names if schema.names.count(name) > 1}):
        problems.append(DataError("a column stands twice", file=path, column=", ".join(repeated)))
        return problems
    for name, kind in columns.items():
        if name not in schema.names:
            continue
        found = kind_of(schema.field(name).type)
        if name == LABEL_COLUMN and found != "text":
            problems += _label_problems(path, schema, reading)
        elif not is_of_kind(found, kind, name):
            advice = f"it is {schema.field(name).type} and must be {WORDS[kind]}"
            if (found, kind) == ("text", "integer"):
                advice += "; `tournament data import` numbers what has other ids"
            problems.append(DataError("a column has the wrong type", file=path, column=name, advice=advice))
    return problems


def _extra_columns(table: Parts, columns: Mapping[str, Kind], reading: Reading) -> list[str]:
    unknown = reading.refused([name for name in dict.fromkeys(table.schema.names) if name not in columns])
    unique = [name for name in unknown if table.schema.names.count(name) == 1]
    index = index_columns(table, unique)
    return [name for name in unknown if name not in index]


def _toml(names: Sequence[str]) -> str:
    return json.dumps(list(names), ensure_ascii=False)


def _label_problems(path: Path, schema: pa.Schema, reading: Reading) -> list[DataError]:
    found = schema.field(LABEL_COLUMN).type
    if kind_of(found) in ("integer", "number", "bool") and (reading.labels or declared_labels(schema, LABEL_COLUMN)):
        return []
    if kind_of(found) == "missing":
        return []
    if kind_of(found) in ("integer", "number", "bool"):
        problem, advice = "labels are numbers, and nothing says which number is which class", NUMBERED_LABELS
    else:
        problem, advice = "a column has the wrong type", f"it is {found} and must be {WORDS['text']}"
    return [DataError(problem, file=path, column=LABEL_COLUMN, advice=advice)]


def _read(
    path: Path, columns: Mapping[str, Kind], reading: Reading, progress: Progress, start: float, share: float
) -> _Table:
    """Read a file batch by batch; at most one column is held twice, while its batches are joined."""
    batches: dict[str, list[pa.Array]] = {name: [] for name in columns}
    fingerprints = {name: ColumnFingerprint() for name in columns}
    row, table = 0, opened(path)
    declared = declared_labels(table.schema, LABEL_COLUMN)
    for part, batch in table.batches(list(columns)):
        for name, kind in columns.items():
            array = batch.column(name)
            if name == LABEL_COLUMN:
                array = reading.letters(plain(array), declared)
            array = canonical(array, kind, part.path, name, row)
            fingerprints[name].update(array)
            batches[name].append(array.fill_null("") if kind == "text" else array)
        row += batch.num_rows
        progress(start + share * min(1.0, row / table.rows), f"reading {path.name}")
    joined = {name: pa.concat_arrays(batches.pop(name)) for name in columns}
    return _Table(joined, {name: fingerprint.hexdigest() for name, fingerprint in fingerprints.items()})


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
