"""Names of classes, as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esci_tournament.registry.labels import LABEL_NAMES, LABELS, class_of, classes_in

SPELLINGS = [
    str.upper,
    str.lower,
    "prob_{}".format,
    "P({})".format,
    "{} match".format,
    "label: {}".format,
    "is_{}_probability".format,
    " {}".format,
]


@given(
    st.permutations(range(4)),
    st.lists(st.sampled_from(SPELLINGS), min_size=4, max_size=4),
    st.lists(st.booleans(), min_size=4, max_size=4),
    st.lists(st.sampled_from(["query", "score", "product_title", "label"]), unique=True, max_size=3),
)
def test_columns_are_found_by_their_names_in_any_order_beside_any_others(order, spellings, words, others):
    names = [
        spell((LABEL_NAMES if word else LABELS)[number])
        for number, spell, word in zip(order, spellings, words, strict=True)
    ]
    places = classes_in([*others, *names])
    assert places is not None
    assert [order[place - len(others)] for place in places] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "name", ["", "LABEL_0", "0", 2, None, "exact_or_substitute", "not exact", "cheap", "ES", "e1", "interest", "title"]
)
def test_a_name_that_may_mean_something_else_names_no_class(name):
    assert class_of(name) is None


@pytest.mark.parametrize(
    "names", [["E", "S", "C"], ["E", "S", "C", "C"], ["exact", "Exact", "S", "C", "I"], list("0123"), []]
)
def test_classes_that_are_not_named_once_each_are_not_guessed(names):
    assert classes_in(names) is None


def test_letters_go_before_words():
    assert classes_in(["exact", "I", "C", "S", "E"]) == [4, 3, 2, 1]
