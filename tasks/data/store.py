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

_IDENTITIES = "identities.npy"  # of the pairs of a test split


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
    """Write which pairs a test split holds into an existing, empty folder, for :func:`share_in_test`.

    Args:
        pairs: The test pairs, as for :func:`identities`.
        folder: Gets `identities.npy`.
    """
    np.save(folder / _IDENTITIES, np.unique(identities(pairs)))


def share_in_test(pairs: pd.DataFrame, folder: Path) -> float:
    """Return the share of test pairs that stood, with the same label, in an older test split.

    Args:
        pairs: The test pairs, as for :func:`identities`, and `example_id`.
        folder: What :func:`write_test` wrote of the older test split; earlier releases wrote example ids and labels.

    Returns:
        A share in [0, 1]; 0 for no pairs.
    """
    if not len(pairs):
        return 0.0
    if (known := folder / _IDENTITIES).is_file():
        return float(np.isin(identities(pairs), np.load(known)).mean())
    answers = pairs["example_id"].to_numpy(np.int64) * 8 + pairs["label"].to_numpy(np.int64)
    return float(np.isin(answers, np.load(folder / "answers.npy")).mean())


def identities(pairs: pd.DataFrame) -> np.ndarray:
    """Return a number for each judged pair that says query, product, locale and label, and nothing else.

    An export may number its examples and queries anew each time; the pairs are the same for all that.

    Args:
        pairs: Columns `query_key` (which holds the locale), `product_id` and `label`.

    Returns:
        uint64 (n,).
    """
    codes, products = pd.factorize(pairs["product_id"].astype(str))
    digests = (hashlib.blake2b(one.encode(), digest_size=8).digest() for one in products)
    hashed = np.fromiter((int.from_bytes(one, "little") for one in digests), np.uint64, count=len(products))
    query, label = pairs["query_key"].to_numpy(np.uint64), pairs["label"].to_numpy(np.uint64)
    return _mixed(_mixed(_mixed(query) ^ hashed[codes]) ^ label)


def digest_of_test(pairs: pd.DataFrame) -> str:
    """Return a SHA-256 of the test pairs' identities, by which looks at the same test split are recognised.

    Args:
        pairs: The test pairs, as for :func:`identities`; their order does not matter.

    Returns:
        64 hex digits.
    """
    return hashlib.sha256(np.sort(identities(pairs)).astype("<u8").tobytes()).hexdigest()


def _mixed(values: np.ndarray) -> np.ndarray:
    """Return numbers whose bits depend on all bits of each value (the finaliser of SplitMix64), uint64 (n,)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
