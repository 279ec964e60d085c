"""JSON of strangers: what is parsed is as it was, what is refused raises one kind of error, at once."""

from __future__ import annotations

import json
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esci_tournament.registry.foreign import DEEPEST, read_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_what_is_written_is_read(content: object) -> None:
    text = json.dumps(content)
    try:
        assert read_json(text) == content
    except UnicodeEncodeError:  # a key that is half a pair
        assert "\\ud" in text


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_in_one_way(text: str) -> None:
    with suppress(ValueError):
        read_json(text)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 99_999,
        '{"a":' * 15_000,
        "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1),
        "1" * 6_000,
        '"\\ud800"',
        "",
        "{",
        "[1,]",
    ],
)
def test_what_is_refused_is_refused_at_once(text: str) -> None:
    started = time.process_time()
    with pytest.raises(ValueError):  # noqa: PT011  (each has words of its own)
        read_json(text)
    assert time.process_time() - started < 5  # far above what it takes: it must not explode


def test_brackets_in_text_are_no_levels() -> None:
    assert read_json(json.dumps({"query": "[[[" * 100 + '\\"{'})) == {"query": "[[[" * 100 + '\\"{'}
