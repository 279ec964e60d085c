"""Rows of a table with the official column names, as members read them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from esci_tournament.registry.errors import DataError
from esci_tournament.registry.labels import LABELS
from esci_tournament.tasks.data.dataset import LOCALES

REQUIRED = ("query", "product_locale")
TEXT_COLUMNS = {
    "title": "product_title",
    "brand": "product_brand",
    "color": "product_color",
    "bullets": "product_bullet_point",
    "description": "product_description",
}
INPUT_COLUMNS = (*REQUIRED, "product_id", *TEXT_COLUMNS.values())
# What an ensemble's entry in MLflow shows as its input, and the types of its answer
EXAMPLE = pd.DataFrame(
    [
        ("red kettle", "us", "B000000001", "Norvik kettle, red", "Norvik", "Red", "2.5 l", "Enamel, whistles."),
        ("tetera roja", "es", "B000000002", "Tetera de acero Zentro", "Zentro", "Rojo", "1,5 l", "Acero inoxidable."),
    ],
    columns=list(INPUT_COLUMNS),
)
OPTIONS = {"answer": "all"}  # or "label", for callers that want one column
ANSWER = pd.DataFrame({**{letter: np.full(2, 0.25, np.float32) for letter in LABELS}, "label": ["E", "S"]})


def frame_of(given: Any) -> pd.DataFrame:
    """Return a table that was given as MLflow's callers give one.

    Args:
        given: a frame; columns by name, as lists, arrays or single values; or a list of rows by name. MLflow makes one
            row of the lists of a dict, which is undone here.

    Returns:
        The frame.

    Raises:
        DataError: if it is none of these, or columns differ in length.

    Example:
        >>> frame_of({"query": ["lamp", "desk lamp"], "product_locale": "us"}).shape
        (2, 2)
    """
    if isinstance(given, pd.DataFrame):
        cells = {} if len(given) != 1 else {str(name): given[name].iloc[0] for name in given.columns}
        if not any(isinstance(cell, list | np.ndarray) for cell in cells.values()):
            return given
        given = cells
    if isinstance(given, dict) and not any(isinstance(one, list | tuple | np.ndarray) for one in given.values()):
        given = [given]
    try:
        return pd.DataFrame(given)
    except (ValueError, TypeError) as error:
        raise DataError(f"this is no table of pairs: {error}", advice="give a frame, or columns by name") from error


def rows_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the columns that are read, as text.

    Args:
        frame: columns query and product_locale; product_id and the text columns are empty when they are absent, others
            are ignored. Whole numbers are read as their digits, also where a column keeps them as floats because of
            missing values.

    Returns:
        Columns `INPUT_COLUMNS`, `str`, "" for a missing value; on a RangeIndex, in the order of `frame`.

    Raises:
        DataError: if a required column is absent, or one that is read stands twice.

    Example:
        >>> frame = pd.DataFrame({"query": ["lamp"], "product_locale": "us", "product_id": [7.0]}, index=[3])
        >>> rows_of(frame)["product_id"].to_dict()
        {0: '7'}
    """
    if absent := [column for column in REQUIRED if column not in frame]:
        has = ", ".join(map(str, frame.columns))[:500]
        advice = f"needed: {', '.join(REQUIRED)}; the table has the columns {has}"
        raise DataError("a required column is absent", column=", ".join(absent), advice=advice)
    return pd.DataFrame({column: _text(frame, column) for column in INPUT_COLUMNS})


def problems_of(rows: pd.DataFrame) -> pd.Series:
    """Return why no model can answer for some rows.

    Args:
        rows: as :func:`rows_of` returns them.

    Returns:
        str (n,), "" where nothing is wrong with the query and the locale.
    """
    problems = pd.Series("", index=rows.index, dtype=object)
    unknown = ~rows["product_locale"].isin(LOCALES)
    said = rows.loc[unknown, "product_locale"].map(repr)
    problems[unknown] = "the locale " + said + f" is not one of {', '.join(LOCALES)}"
    problems[rows["query"].str.strip() == ""] = "the query is blank"
    return problems


def raise_for(problems: pd.Series) -> None:
    """Raise for the first problem.

    Args:
        problems: str (n,), "" where there is none.

    Raises:
        DataError: if there is one; the message names the first rows that have the same, and how many have any.
    """
    wrong = problems[problems != ""]
    if len(wrong):
        first = str(wrong.iloc[0])
        alike = wrong.index[wrong == first]
        raise DataError(first, rows=list(alike[:5]), count=len(wrong))


def pairs_and_products(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return rows as the pairs and products that candidates read.

    Args:
        rows: as :func:`rows_of` returns them.

    Returns:
        Pairs (query, locale, product: int32 row of the products) in the order of `rows`, on a new index, and the
        distinct products (product_id, locale, title, brand, color, bullets, description).

    Example:
        >>> frame = pd.DataFrame({"query": ["lamp", "desk lamp"], "product_locale": "us", "product_title": "Lamp"})
        >>> pairs, products = pairs_and_products(rows_of(frame))
        >>> pairs["product"].tolist(), len(products)
        ([0, 0], 1)
    """
    names = {"product_id": "product_id", "product_locale": "locale"}
    names |= {official: name for name, official in TEXT_COLUMNS.items()}
    products = rows[list(names)].rename(columns=names)
    # A product that stands in many rows is encoded once
    numbers = products.groupby(list(products.columns), sort=False).ngroup().to_numpy(np.int32)
    distinct = products.iloc[np.unique(numbers, return_index=True)[1]].reset_index(drop=True)
    pairs = {"query": rows["query"].to_numpy(object), "locale": products["locale"].to_numpy(object), "product": numbers}
    return pd.DataFrame(pairs), distinct


def _text(frame: pd.DataFrame, column: str) -> pd.Series:
    if column not in frame:
        return pd.Series("", index=range(len(frame)), dtype=object)
    values = frame[column]
    if isinstance(values, pd.DataFrame):
        raise DataError("a column stands twice", column=column, advice="keep one of them")
    # As objects: a categorical column has no "" to fill in
    return values.astype(object).where(values.notna(), "").map(_digits).astype(str).reset_index(drop=True)


def _digits(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value
