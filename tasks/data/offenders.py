"""Offenders: the first rows that break a rule, each with its number in the file, its identity and its value.

Great Expectations could list them too, but takes minutes where a mask takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from esci_tournament.tasks.data.dataset import Dataset
from esci_tournament.tasks.data.expectations import Offenders

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


def edges_where(mask: Mask, column: str) -> Offenders:
    """Return what finds the edges of the edge table for which `mask` is true and shows their value of `column`."""

    def find(dataset: Dataset) -> tuple[list[str], int]:
        rows = np.flatnonzero(mask(dataset.edges).to_numpy())
        return _shown(dataset.edges, rows, column, "query"), len(rows)

    return find


def left_out_for(reason: str) -> Offenders:
    """Return what names the rows of logs that were left out for `reason`, file by file."""

    def find(dataset: Dataset) -> tuple[list[str], int]:
        found = [one for one in dataset.left_out if one.reason == reason]
        shown = [f"{one.file}, {row}" if len(found) > 1 else row for one in found for row in one.first_rows]
        return shown[:SHOWN], sum(one.count for one in found)

    return find


def _shown(frame: pd.DataFrame, rows: np.ndarray, column: str, identity: str) -> list[str]:
    first = frame.iloc[rows[:SHOWN]]
    values = first[column].astype(object)
    return [
        f"row {row} ({identity} {name}): {value!r}"
        for row, name, value in zip(rows[:SHOWN], first[identity], values, strict=True)
    ]


def spelt_where(mask: Callable[[Dataset], np.ndarray], file: str, column: str, identity: str) -> Offenders:
    """Return what finds rows whose value the data set does not keep, and shows it as `file` spells it.

    Args:
        mask: True for the offending rows of the file.
        file: The file, of the data set's folder.
        column: The column to show.
        identity: The column that tells rows apart.
    """

    def find(dataset: Dataset) -> tuple[list[str], int]:
        rows = np.flatnonzero(mask(dataset))
        table = pq.read_table(dataset.source / file, columns=[identity, column]).take(pa.array(rows[:SHOWN]))
        shown = zip(rows[:SHOWN], table[identity].to_pylist(), table[column].to_pylist(), strict=True)
        return [f"row {row} ({identity} {name}): {value!r}" for row, name, value in shown], len(rows)

    return find


def unknown_label(dataset: Dataset) -> np.ndarray:
    """Return which pairs have a label that is not known, bool (n_pairs,)."""
    return dataset.pairs["label"].to_numpy() < 0
