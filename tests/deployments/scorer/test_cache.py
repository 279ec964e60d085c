"""Keys and entries of the label cache."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from esci_tournament.deployments.scorer.cache import (
    EARLY,
    ENTRY,
    entries_of,
    pair_keys,
    probabilities_of,
)
from esci_tournament.deployments.scorer.catalogue import Text, own_version, text_version
from esci_tournament.deployments.scorer.compute.pairs import Pairs


def test_a_key_follows_from_everything_that_a_label_follows_from() -> None:
    def key(version: int = 1, locale: str = "us", query: str = "red mug", product: str = "B0", text: int = 7) -> bytes:
        return pair_keys(version, locale, query, [product], np.array([text], np.uint64)).tobytes()

    others = [
        key(2),
        key(locale="es"),
        key(query="red mugs"),
        key(query="Red\tMUG "),
        key(product="B1"),
        key(text=8),
        key(text=2**64 - 1),
    ]
    assert len({key(), *others}) == 8
    assert key() == pair_keys(1, "us", "red mug", ["B0"], [7]).tobytes()


_WORDS = st.text(st.sampled_from("aA\uff21 \x1f1"), max_size=4)  # \uff21 is a full-width A
_PAIRS = st.tuples(st.sampled_from(["us", "jp"]), _WORDS, st.builds(Text, *[_WORDS] * 6))


@given(_PAIRS, _PAIRS)
@example(("us", "usb", Text("", *"abcde")), ("us", "\uff55sb", Text("", *"abcde")))
@example(("us", "a", Text("", "b\x1f", "", "", "", "")), ("us", "a", Text("", "b", "\x1f", "", "", "")))
def test_pairs_with_equal_keys_are_the_same_input_of_every_model(one, other) -> None:
    """S3.1, S3.2: a spelling, or a field's end, that the key does not tell apart gives its label to others."""

    def key(locale: str, query: str, text: Text) -> bytes:
        return pair_keys(1, locale, query, [text.product_id], [own_version(text)]).tobytes()

    def of_catalogue(locale: str, query: str, text: Text) -> bytes:
        return pair_keys(1, locale, query, [text.product_id], [text_version(text)]).tobytes()

    for digest in (key, of_catalogue):
        same = Pairs(one[1], one[0], [one[2]]).encoded == Pairs(other[1], other[0], [other[2]]).encoded
        assert (digest(*one) == digest(*other)) == same
    assert key(*one) != of_catalogue(*one)


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
    labels = probabilities.argmin(axis=1)  # not always the most probable class
    entries = entries_of(probabilities, labels)
    assert np.array_equal(entries["label"], labels)
    assert np.abs(probabilities_of(entries) - probabilities).max(initial=0) <= 0.5 / 65535 + 1e-9


def test_an_early_exit_is_marked() -> None:
    entries = entries_of(np.eye(4), np.arange(4), np.array([True, False, True, False]))
    assert (entries["flags"] & EARLY).tolist() == [1, 0, 1, 0]
    assert entries.dtype == ENTRY
    assert ENTRY.itemsize == 10
