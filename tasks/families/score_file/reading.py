"""Open score files, which their registrants wrote, in a child process."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from esci_tournament.registry.border import in_child
from esci_tournament.registry.errors import SpecError
from esci_tournament.registry.labels import LABELS
from esci_tournament.tasks.data.foreign_table import Bounds, batches, opened, write_numbers
from esci_tournament.tasks.data.layout import UNNAMED_INDEX

ID = "example_id"
BOUNDS = Bounds(rows=50_000_000, unpacked_mib=8192)  # the official data has 2.6 million pairs
_WHAT = "score file"
_CHECK_SECONDS, _READ_SECONDS, _MEMORY_MIB = 60.0, 1800.0, 1024


def check_file(path: Path) -> None:
    """Check columns, types and bounds by the file's footer alone.

    Args:
        path: The file.

    Raises:
        SpecError: If it is missing, no Parquet, too large, or its columns are others.
    """
    in_child(
        f"{__name__}:check_footer",
        {"path": str(path.absolute())},
        doing=f"open {_WHAT} {path}",
        seconds=_CHECK_SECONDS,
        memory_mib=_MEMORY_MIB,
        refusal=SpecError,
    )


def read_file(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return what a score file holds.

    Args:
        path: The file.

    Returns:
        Example ids, int64 (n,), and probabilities, float32 (n, 4), as they stand there.

    Raises:
        SpecError: If it is missing, no Parquet, damaged, too large, its columns are others, or an id is missing.
    """
    with tempfile.TemporaryDirectory(prefix="scores-") as scratch:
        ids, values = Path(scratch, "ids"), Path(scratch, "values")
        in_child(
            f"{__name__}:copy_numbers",
            {"path": str(path.absolute()), "ids": str(ids), "values": str(values)},
            doing=f"read {_WHAT} {path}",
            seconds=_READ_SECONDS,
            memory_mib=_MEMORY_MIB,
            writes_mib=BOUNDS.rows * 4 * len(LABELS) // 2**20 + 1,
            refusal=SpecError,
        )
        return np.fromfile(ids, dtype=np.int64), np.fromfile(values, dtype=np.float32).reshape(-1, len(LABELS))


def check_footer(path: str) -> int:
    """Check a file's footer, in the child.

    Args:
        path: The file.

    Returns:
        The number of its rows.

    Raises:
        SpecError: As :func:`check_file`.
    """
    with opened(Path(path), _WHAT, BOUNDS) as source:
        _check_columns(path, source.schema_arrow)
        return int(source.metadata.num_rows)


def copy_numbers(path: str, ids: str, values: str) -> int:
    """Write a file's columns as raw numbers, in the child.

    Args:
        path: The file.
        ids: File that gets the example ids, int64.
        values: File that gets the probabilities, float32, row by row.

    Returns:
        The number of rows.

    Raises:
        SpecError: As :func:`read_file`.
    """
    Path(ids).touch()
    Path(values).touch()
    with opened(Path(path), _WHAT, BOUNDS) as source:
        _check_columns(path, source.schema_arrow)
        for batch in batches(source, [ID, *LABELS], BOUNDS, f"{_WHAT} {path}"):
            if batch[ID].null_count:
                raise SpecError(f"{_WHAT} {path}: {ID} is missing in {batch[ID].null_count} rows")
            write_numbers(ids, [batch[ID].cast(pa.int64()).to_numpy(zero_copy_only=False)])
            columns = [batch[label].to_numpy(zero_copy_only=False).astype(np.float32) for label in LABELS]
            write_numbers(values, [np.stack(columns, axis=1)])
        return int(source.metadata.num_rows)


def _check_columns(path: str, schema: pa.Schema) -> None:
    wanted = (ID, *LABELS)
    names = [name for name in schema.names if not name.startswith(UNNAMED_INDEX)]
    if sorted(names) != sorted(wanted):
        raise SpecError(
            f"{_WHAT} {path} has the columns {', '.join(names)[:1000]}; it must have {', '.join(wanted)}: "
            "one example_id and the probabilities of four classes"
        )
    wrong = [ID] if not pa.types.is_integer(schema.field(ID).type) else []
    wrong += [label for label in LABELS if not pa.types.is_floating(schema.field(label).type)]
    if wrong:
        raise SpecError(
            f"{_WHAT} {path}: column {wrong[0]} is {schema.field(wrong[0]).type}; "
            "example_id is a whole number, E, S, C and I are floats"
        )
