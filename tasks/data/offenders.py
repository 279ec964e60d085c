"""Find the first rows that break a rule, each with its number in the file, its identity and its value.

Great Expectations could list them too, but takes minutes where a mask takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pyarrow as pa

from esci_tournament.tasks.data.dataset import Dataset
from esci_tournament.tasks.data.expectations import Offenders
from esci_tournament.tasks.data.parquet_files import opened

SHOWN = 5  # offending rows that are named


def no_rows(_dataset: Dataset) -> tuple[list[str], int]:
    """Find nothing: for a rule that is about no row in particular."""
    return [], 0


Mask = Callable[[pd.DataFrame], pd.Series]


def pairs_where(mask: Mask, column: str) -> Offenders:
    """Return a function that finds the pairs for which a mask is true.

    Args:
        mask: Called with `Dataset.pairs`; returns bool (n_pairs,).
        column: Column of `Dataset.pairs` whose values are shown.

    Returns:
        A function that takes a data set and returns at most :data:`SHOWN` rows in words, and how many rows offend.
    """

    def find(dataset: Dataset) -> tuple[list[str], int]:
        rows = np.flatnonzero(mask(dataset.pairs).to_numpy())
        return _shown(dataset.pairs, rows, column, "example_id"), len(rows)

    return find


def products_where(mask: Mask, column: str) -> Offenders:
    """Return a function that finds the products for which a mask is true.

    Args:
        mask: Called with `Dataset.products`; returns bool (n_products,).
        column: Column of `Dataset.products` whose values are shown.

    Returns:
        A function as :func:`pairs_where` returns it.
    """

    def find(dataset: Dataset) -> tuple[list[str], int]:
        rows = np.flatnonzero(mask(dataset.products).to_numpy())
        return _shown(dataset.products, rows, column, "product_id"), len(rows)

    return find


def events_where(mask: Mask, column: str) -> Offenders:
    """Return a function that finds the events for which a mask is true.

    Args:
        mask: Called with `Dataset.events`; returns bool (n_events,).
        column: Column of `Dataset.events` whose values are shown.

    Returns:
        A function as :func:`pairs_where` returns it; the data set must have events.
    """

    def find(dataset: Dataset) -> tuple[list[str], int]:
        rows = np.flatnonzero(mask(dataset.events).to_numpy())
        return _shown(dataset.events, rows, column, "session"), len(rows)

    return find


def edges_where(mask: Mask, column: str) -> Offenders:
    """Return a function that finds the edges of the edge table for which a mask is true.

    Args:
        mask: Called with `Dataset.edges`; returns bool (n_edges,).
        column: Column of `Dataset.edges` whose values are shown.

    Returns:
        A function as :func:`pairs_where` returns it; the data set must have an edge table.
    """

    def find(dataset: Dataset) -> tuple[list[str], int]:
        rows = np.flatnonzero(mask(dataset.edges).to_numpy())
        return _shown(dataset.edges, rows, column, "query"), len(rows)

    return find


def left_out_for(reason: str) -> Offenders:
    """Return a function that lists the rows of logs that were left out for a reason, file by file.

    Args:
        reason: A key of :data:`esci_tournament.tasks.data.logs.REASONS`.

    Returns:
        A function as :func:`pairs_where` returns it; rows are prefixed with their file when there are several.
    """

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
    """Return a function that finds rows whose value the data set does not keep, and shows it as the file spells it.

    Args:
        mask: Called with the data set; returns bool (rows of the file,), True for the offending rows.
        file: Name of a file in the data set's folder.
        column: Column of the file whose values are shown.
        identity: Column of the file that tells rows apart.

    Returns:
        A function as :func:`pairs_where` returns it; it reads two columns of the file.
    """

    def find(dataset: Dataset) -> tuple[list[str], int]:
        rows = np.flatnonzero(mask(dataset))
        table = opened(dataset.source / file).read([identity, column]).take(pa.array(rows[:SHOWN]))
        shown = zip(rows[:SHOWN], table[identity].to_pylist(), table[column].to_pylist(), strict=True)
        return [f"row {row} ({identity} {name}): {value!r}" for row, name, value in shown], len(rows)

    return find


def unknown_label(dataset: Dataset) -> np.ndarray:
    """Return which pairs have a label that is not known, bool (n_pairs,)."""
    return dataset.pairs["label"].to_numpy() < 0
