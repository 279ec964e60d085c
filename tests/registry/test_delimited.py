"""Separators of text tables."""

from __future__ import annotations

import pytest

from esci_tournament.registry.delimited import delimiter_of


@pytest.mark.parametrize(
    ("header", "usual", "found"),
    [
        ("query,title", ",", ","),
        ('"query";"title, long"', ",", ";"),
        ("query\ttitle", ",", "\t"),
        ("title|query", ",", "|"),
        ("query,title", "\t", "\t"),
        ("other;names", ",", ","),
        ("", ",", ","),
    ],
)
def test_the_separator_is_what_gives_a_header_with_the_column(header: str, usual: str, found: str) -> None:
    assert delimiter_of(header, "query", usual) == found
