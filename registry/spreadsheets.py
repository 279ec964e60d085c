"""Cells of CSV files that people open in a spreadsheet, which takes some texts for formulas and runs them."""

from __future__ import annotations

import re
from typing import Any

# What begins a formula; a full-width sign does in some locales, and what is blank is skipped
_BEGINNINGS = ("=", "+", "-", "@", "\t", "\n", "＝", "＋", "－", "＠")

_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?([eE][+-]?\d+)?")


def harmless(value: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula.

    Args:
        value: The cell.

    Returns:
        Text that begins as a formula does, and is no number, with an apostrophe before it, and with line feeds where
        carriage returns are, which would begin a new row where they are not quoted; anything else as it is.

    Example:
        >>> harmless("=HYPERLINK(1)"), harmless("lamp"), harmless("-3.5"), harmless(-3)
        ("'=HYPERLINK(1)", 'lamp', '-3.5', -3)
    """
    if not isinstance(value, str):
        return value
    value = value.replace("\r\n", "\n").replace("\r", "\n")
    begins = value.lstrip(" ").startswith(_BEGINNINGS) and not _NUMBER.fullmatch(value)
    return f"'{value}" if begins else value
