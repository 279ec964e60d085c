"""Hashed words and n-grams of texts, and what two texts share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esci_tournament.tasks.families.lexicon import Lexicon
from esci_tournament.tasks.families.ngrams import WORDS, count, normalise

TEXTS = st.lists(st.text(max_size=30), max_size=6)
SHELF = [
    f"{color} {kind} {number}"
    for number, (color, kind) in enumerate(
        (color, kind)
        for color in ("red", "blue", "green")
        for kind in ("running shoe", "coffee mug", "desk lamp", "椅子")
    )
]


@given(TEXTS)
def test_texts_are_counted_independently_of_each_other(texts: list[str]) -> None:
    together = count(texts)
    assert together.shape[0] == len(texts)
    for row, text in enumerate(texts):
        assert (together[row] != count([text])).nnz == 0


@given(st.lists(st.text("abcdé椅子", min_size=1, max_size=6), min_size=1, max_size=8))
def test_words_are_counted_exactly(words: list[str]) -> None:
    row = count([" ".join(words)])
    found = sorted(row.data[row.indices < WORDS].tolist())
    assert found == sorted(float(words.count(word)) for word in set(words))


def test_case_width_and_punctuation_do_not_matter() -> None:
    assert (count(["Café-Tisch, ＡＢＣ!"]) != count(["café tisch abc"])).nnz == 0


def test_order_of_letters_and_words_matters_to_the_hash_as_it_should() -> None:
    assert (count(["abc"]) != count(["acb"])).nnz > 0
    assert (count(["red shoe"]) != count(["shoe red"])).nnz == 0


def test_japanese_texts_share_pairs_of_characters() -> None:
    lexicon = Lexicon.fit(["木製の椅子", "青いマグカップ", "椅子カバー", "ランプ"])
    near, far = lexicon.overlap(["椅子"], ["木製の椅子", "青いマグカップ"], np.array([0, 0]), np.array([0, 1]))
    assert near[0] > 0.1
    assert far.tolist() == [0, 0, 0]


def test_overlap_of_a_text_with_itself_is_whole_and_with_nothing_is_none() -> None:
    lexicon = Lexicon.fit(SHELF)
    same, empty = lexicon.overlap(["red running shoe"], ["red running shoe", ""], np.array([0, 0]), np.array([0, 1]))
    assert same == pytest.approx([1, 1, 1], abs=1e-5)
    assert empty.tolist() == [0, 0, 0]


@given(
    st.lists(st.text("ab 椅子", max_size=8), min_size=1, max_size=4),
    st.lists(st.text("ab 椅子", max_size=12), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=9),
)
def test_overlaps_are_what_dictionaries_of_terms_say(queries: list[str], products: list[str], places: list) -> None:
    lexicon = Lexicon.fit(SHELF)

    def terms(text: str) -> dict[int, float]:
        row = lexicon.tfidf([text])
        return dict(zip(row.indices.tolist(), row.data.astype(float).tolist(), strict=True))

    def share(query: dict[int, float], product: dict[int, float], words: bool) -> float:
        weights = {bucket: weight for bucket, weight in query.items() if (bucket < WORDS) == words}
        return sum(weights[one] for one in weights if one in product) / sum(weights.values()) if weights else 0.0

    query_rows = np.array([place[0] % len(queries) for place in places], dtype=np.int64)
    product_rows = np.array([place[1] % len(products) for place in places], dtype=np.int64)
    found = lexicon.overlap(queries, products, query_rows, product_rows)
    for query_row, product_row, overlap in zip(query_rows, product_rows, found, strict=True):
        query, product = terms(queries[query_row]), terms(products[product_row])
        cosine = sum(weight * product.get(bucket, 0.0) for bucket, weight in query.items())
        expected = [cosine, share(query, product, words=True), share(query, product, words=False)]
        assert overlap == pytest.approx(expected, abs=1e-5)


@given(TEXTS)
def test_texts_that_are_normalised_need_not_be_again(texts: list[str]) -> None:
    ready = [normalise(text) for text in texts]
    assert (count(ready, normalised=True) != count(texts)).nnz == 0
