"""The file in which an owner lists the queries that a model was trained on, read in a child process."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from esci_tournament.registry.border import in_child
from esci_tournament.registry.errors import SpecError
from esci_tournament.tasks.data.dataset import query_keys
from esci_tournament.tasks.data.foreign_table import Bounds, batches, is_text, opened, write_numbers

BOUNDS = Bounds(rows=10_000_000, unpacked_mib=2048)
_WHAT = "trained_queries"
_TEXTS = ("query", "product_locale")
_DISTINCT = 5_000_000  # queries that may be listed, each counted once; the official data has 130,652
_SECONDS, _MEMORY_MIB = 120.0, 1024
_MERGE = 2**20  # numbers that are held before doubles are removed


def read_listed(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the queries that a Parquet file lists.

    Args:
        path: File with a column `query_id` of integers, or else with `query` and `product_locale`.

    Returns:
        Query keys, uint64 (n,), and query ids, int64 (m,), each sorted and distinct; one of them is empty.

    Raises:
        SpecError: If the file cannot be read, has neither, lists nothing, or is larger than it may be.
    """
    with tempfile.TemporaryDirectory(prefix="listed-") as scratch:
        numbers = Path(scratch, "numbers")
        kind = in_child(
            f"{__name__}:copy_numbers",
            {"path": str(path.absolute()), "numbers": str(numbers)},
            doing=f"read {_WHAT} {path}",
            seconds=_SECONDS,
            memory_mib=_MEMORY_MIB,
            writes_mib=64,
            refusal=SpecError,
        )
        found = np.fromfile(numbers, dtype=np.int64 if kind == "ids" else np.uint64)
    none = np.zeros(0, np.int64), np.zeros(0, np.uint64)
    return (none[1], found) if kind == "ids" else (found, none[0])


def copy_numbers(path: str, numbers: str) -> str:
    """Write the distinct ids or keys of the queries in a file; this runs in the child.

    Args:
        path: The file.
        numbers: File that gets them, as raw int64 or uint64.

    Returns:
        "ids" or "keys".

    Raises:
        SpecError: As :func:`read_listed`.
    """
    with opened(Path(path), _WHAT, BOUNDS, _TEXTS) as source:
        if not source.metadata.num_rows:
            raise SpecError(f"{_WHAT} {path} lists no query; a model that saw none declares trained_on = other_queries")
        columns = _columns(path, source.schema_arrow)
        held, found = 0, [np.zeros(0, np.int64 if len(columns) == 1 else np.uint64)]
        for batch in batches(source, columns, BOUNDS, f"{_WHAT} {path}"):
            if batch.column(0).null_count:
                raise SpecError(f"{_WHAT} {path}: column {columns[0]} has gaps; fill or remove them")
            found.append(_numbers(batch))
            held += len(found[-1])
            if held > _MERGE:
                found, held = [_distinct(path, found)], 0
        write_numbers(numbers, [_distinct(path, found)])
    return "ids" if len(columns) == 1 else "keys"


def _columns(path: str, schema: pa.Schema) -> list[str]:
    names = schema.names
    if names.count("query_id") == 1 and pa.types.is_integer(schema.field("query_id").type):
        return ["query_id"]
    if all(names.count(name) == 1 and is_text(schema.field(name).type) for name in _TEXTS):
        return list(_TEXTS)
    found = ", ".join(f"{field.name} ({field.type})" for field in schema)[:1000]
    raise SpecError(
        f"{_WHAT} {path}: needed is a column query_id of whole numbers, or query and product_locale of text; found "
        f"{found}"
    )


def _numbers(batch: pa.RecordBatch) -> np.ndarray:
    if batch.num_columns == 1:
        return np.unique(batch.column(0).cast(pa.int64()).to_numpy(zero_copy_only=False))
    pairs = set(zip(batch.column(0).to_pylist(), map(str, batch.column(1).to_pylist()), strict=True))
    queries, locales = zip(*pairs, strict=True) if pairs else ((), ())
    return np.unique(query_keys(queries, locales))


def _distinct(path: str, parts: list[np.ndarray]) -> np.ndarray:
    found = np.unique(np.concatenate(parts))
    if len(found) > _DISTINCT:
        raise SpecError(f"{_WHAT} {path} lists more than {_DISTINCT:,} queries")
    return found
