"""The text builder."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esci_tournament.registry.errors import DataError
from esci_tournament.tasks.families.language_model.text import clean, digest_texts, field_texts


def test_html_and_blanks_go_and_a_bare_less_than_stays():
    assert clean("<p>Silla&nbsp;de <b>madera</b></p>\n\n y  m&aacute;s") == "Silla de madera y más"
    assert clean("width < 5 cm") == "width < 5 cm"


@given(st.text(max_size=80), st.integers(1, 20))
def test_cleaning_keeps_within_the_limit(text, limit):
    assert len(clean(text, limit)) <= limit


def test_fields_come_in_the_order_asked_for_and_missing_text_is_empty():
    products = pd.DataFrame({"title": ["mug", "lamp"], "brand": [None, "Kumo"]})
    assert field_texts(products, np.array([1, 0]), ("brand", "title"), 8) == {
        "brand": ["Kumo", ""],
        "title": ["lamp", "mug"],
    }


def test_what_is_not_in_the_catalogue_is_named():
    products = pd.DataFrame({"title": ["mug"]})
    with pytest.raises(DataError, match="'color'"):
        field_texts(products, np.array([0]), ("color",), 8)
    with pytest.raises(DataError, match="row 7"):
        field_texts(products, np.array([7]), ("title",), 8)


def test_a_digest_sees_where_one_text_ends():
    assert digest_texts(["ab", "c"]) != digest_texts(["a", "bc"])


def test_the_texts_of_a_page_do_not_cost_memory_for_the_whole_catalogue():
    products = pd.DataFrame({"title": pd.array([f"lamp {row}" for row in range(100_000)], dtype="str")})
    tracemalloc.start()
    try:
        texts = field_texts(products, np.array([7, 99_999]), ["title"], 8)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert texts == {"title": ["lamp 7", "lamp 99999"]}
    assert peak < 100_000
