"""Keys and entries of the label cache."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esci_tournament.deployments.scorer.cache import (
    EARLY,
    ENTRY,
    entries_of,
    pair_keys,
    probabilities_of,
)


def test_a_key_follows_from_everything_that_a_label_follows_from() -> None:
    def key(version: int = 1, locale: str = "us", query: str = "red mug", product: str = "B0", text: int = 7) -> bytes:
        return pair_keys(version, locale, query, [product], np.array([text], np.uint64)).tobytes()

    others = [key(2), key(locale="es"), key(query="red mugs"), key(product="B1"), key(text=8), key(text=2**64 - 1)]
    assert len({key(), *others}) == 7
    assert key(query="  Red\tMUG ") == key()
    assert key() == pair_keys(1, "us", "red mug", ["B0"], [7]).tobytes()


def test_no_query_or_id_can_pass_for_another_by_its_separators() -> None:
    seen = {
        pair_keys(1, "us", query, [product], [7]).tobytes()
        for query, product in (("a", "b\x1f7\x1fc"), ("a\x1f7\x1fb", "c"), ("a", "b"), ("a\x1fb", ""), ("", "a\x1fb"))
    }
    assert len(seen) == 5


def test_strange_text_has_a_key_and_no_product_none() -> None:
    assert pair_keys(1, "jp", "\ud800 湯呑み", ["\udfff"], [0]).shape == (1, 16)
    assert pair_keys(1, "jp", "湯呑み", [], []).shape == (0, 16)
    with pytest.raises(ValueError, match="zip"):
        pair_keys(1, "us", "a", ["B0", "B1"], [1])


@given(st.lists(st.lists(st.floats(0.0001, 1), min_size=4, max_size=4), max_size=20))
def test_an_entry_gives_back_label_and_probabilities(rows: list[list[float]]) -> None:
    weights = np.array(rows).reshape(-1, 4)
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    entries = entries_of(probabilities)
    assert np.array_equal(entries["label"], probabilities.argmax(axis=1))
    assert np.abs(probabilities_of(entries) - probabilities).max(initial=0) <= 0.5 / 65535 + 1e-9


def test_an_early_exit_is_marked() -> None:
    entries = entries_of(np.eye(4), np.array([True, False, True, False]))
    assert (entries["flags"] & EARLY).tolist() == [1, 0, 1, 0]
    assert entries.dtype == ENTRY
    assert ENTRY.itemsize == 10
