"""Store a loaded data set on disk as memory-mapped Arrow, so that worker processes open it within milliseconds."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather

from esci_tournament.tasks.data.dataset import Dataset, LeftOut


def save_dataset(dataset: Dataset, folder: Path) -> None:
    """Write a data set into an existing, empty folder: an Arrow file per frame and a JSON header.

    Args:
        dataset: The data set.
        folder: Gets `pairs.arrow`, `products.arrow`, `dataset.json` and, if there are any, `events.arrow` and
            `edges.arrow`.
    """
    for name in ("pairs", "products", "events", "edges"):
        frame = getattr(dataset, name)
        if frame is not None:
            write_frame(frame, folder / f"{name}.arrow")
    left_out = [asdict(one) for one in dataset.left_out]
    header = {"version": dataset.version, "source": str(dataset.source), "left_out": left_out}
    (folder / "dataset.json").write_text(json.dumps(header), encoding="utf-8")


def open_dataset(folder: Path) -> Dataset:
    """Return the data set that :func:`save_dataset` wrote; its files are memory-mapped."""
    header = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    events, edges = folder / "events.arrow", folder / "edges.arrow"
    left_out = (LeftOut(**{**one, "first_rows": tuple(one["first_rows"])}) for one in header.get("left_out", ()))
    return Dataset(
        pairs=read_frame(folder / "pairs.arrow"),
        products=read_frame(folder / "products.arrow"),
        events=read_frame(events) if events.is_file() else None,
        version=header["version"],
        source=Path(header["source"]),
        edges=read_frame(edges) if edges.is_file() else None,
        left_out=tuple(left_out),
    )


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame as uncompressed Arrow IPC, without its index, for :func:`read_frame` to memory-map."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    feather.write_feather(table, str(path), compression="uncompressed")


def read_frame(path: Path) -> pd.DataFrame:
    """Return the frame that :func:`write_frame` wrote, on a RangeIndex; strings stay in memory-mapped Arrow."""
    return feather.read_table(str(path), memory_map=True).to_pandas()


def write_test(pairs: pd.DataFrame, folder: Path) -> None:
    """Write the test pairs' ids and labels into an existing, empty folder, for :func:`share_in_test`.

    Args:
        pairs: The test pairs; `example_id` and `label` are read.
        folder: Gets `answers.npy`.
    """
    np.save(folder / "answers.npy", _answers(pairs))


def share_in_test(pairs: pd.DataFrame, folder: Path) -> float:
    """Return the share of test pairs that stood, with the same label, in an older test split.

    Args:
        pairs: The test pairs; `example_id` and `label` are read.
        folder: What :func:`write_test` wrote of the older test split.

    Returns:
        A share in [0, 1]; 0 for no pairs.
    """
    return float(np.isin(_answers(pairs), np.load(folder / "answers.npy")).mean()) if len(pairs) else 0.0


def _answers(pairs: pd.DataFrame) -> np.ndarray:
    """Return each pair's id and label in one number, int64 (n,)."""
    return pairs["example_id"].to_numpy(np.int64) * 8 + pairs["label"].to_numpy(np.int64)


def digest_of_test(pairs: pd.DataFrame) -> str:
    """Return a SHA-256 of the test pairs' ids and labels, by which looks at the same test split are recognised.

    Args:
        pairs: The test pairs; `example_id` and `label` are read, and their order does not matter.

    Returns:
        64 hex digits.
    """
    rows = pairs.sort_values("example_id")
    content = rows["example_id"].to_numpy(np.int64).tobytes() + rows["label"].to_numpy(np.int8).tobytes()
    return hashlib.sha256(content).hexdigest()
