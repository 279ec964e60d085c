"""Text tables as people and spreadsheets write them."""

from __future__ import annotations

import csv

_OTHERS = (";", "\t", "|")  # that programs write in files named .csv


def delimiter_of(header: str, column: str, usual: str = ",") -> str:
    """Return what separates the cells of a table.

    Args:
        header: Its first line.
        column: A column that every such table has.
        usual: What is assumed unless another one gives a header with that column.

    Returns:
        One character.

    Example:
        >>> delimiter_of("query;product_locale", "query"), delimiter_of("query,a;b", "query")
        (';', ',')
    """
    return next((one for one in (usual, *_OTHERS) if column in cells_of(header, one)), usual)


def cells_of(line: str, delimiter: str) -> list[str]:
    """Return the cells of a line, without quotation marks."""
    return next(csv.reader([line], delimiter=delimiter), [])
