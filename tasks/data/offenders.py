"""Offenders: the first rows that break a rule, each with its number in the file, its identity and its value.

Great Expectations could list them too, but takes minutes where a mask takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.data.dataset import Dataset
from tasks.data.expectations import Offenders
from tasks.data.load import EXAMPLES_FILE

SHOWN = 5  # offending rows that are named


def no_rows(_dataset: Dataset) -> tuple[list[str], int]:
    """Find nothing: for a rule that is about no row in particular."""
    return [], 0


Mask = Callable[[pd.DataFrame], pd.Series]


def pairs_where(mask: Mask, column: str) -> Offenders:
    """Return what finds the pairs for which `mask` is true and shows their value of `column`."""

    def find(dataset: Dataset) -> tuple[list[str], int]:
        rows = np.flatnonzero(mask(dataset.pairs).to_numpy())
        return _shown(dataset.pairs, rows, column, "example_id"), len(rows)

    return find


def products_where(mask: Mask, column: str) -> Offenders:
    """Return what finds the products for which `mask` is true and shows their value of `column`."""

    def find(dataset: Dataset) -> tuple[list[str], int]:
        rows = np.flatnonzero(mask(dataset.products).to_numpy())
        return _shown(dataset.products, rows, column, "product_id"), len(rows)

    return find


def events_where(mask: Mask, column: str) -> Offenders:
    """Return what finds the events for which `mask` is true and shows their value of `column`."""

    def find(dataset: Dataset) -> tuple[list[str], int]:
        rows = np.flatnonzero(mask(dataset.events).to_numpy())
        return _shown(dataset.events, rows, column, "session"), len(rows)

    return find


def _shown(frame: pd.DataFrame, rows: np.ndarray, column: str, identity: str) -> list[str]:
    first = frame.iloc[rows[:SHOWN]]
    values = first[column].astype(object)
    return [
        f"row {row} ({identity} {name}): {value!r}"
        for row, name, value in zip(rows[:SHOWN], first[identity], values, strict=True)
    ]


def unknown_labels(dataset: Dataset) -> tuple[list[str], int]:
    """Name unknown labels as they are spelt in the file: the data set keeps no more than that they are unknown."""
    rows = np.flatnonzero(dataset.pairs["label"].to_numpy() < 0)
    first = dataset.pairs.iloc[rows[:SHOWN]]
    column = pq.read_table(dataset.source / EXAMPLES_FILE, columns=["esci_label"])["esci_label"]
    spelt = column.take(pa.array(rows[:SHOWN])).to_pylist()
    shown = zip(rows[:SHOWN], first["example_id"], spelt, strict=True)
    return [f"row {row} (example_id {name}): {value!r}" for row, name, value in shown], len(rows)
