"""Frozen text features: hashed n-grams, the overlap of two texts, and the vectors computed from them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from esci_tournament.tasks.families.graph_network.encoders import (
    Lsa,
    encode_once,
    fit_encoder,
    load_encoder,
    product_texts,
)
from esci_tournament.tasks.families.graph_network.lexicon import Lexicon
from esci_tournament.tasks.families.graph_network.ngrams import WORDS, count

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


def test_lsa_places_like_near_like_and_has_unit_length() -> None:
    lexicon = Lexicon.fit(SHELF)
    encoder = Lsa.fit(SHELF, lexicon, 8)
    shoe, other_shoe, mug = encoder.encode(["red running shoe", "blue running shoe", "green coffee mug"])
    assert np.linalg.norm(shoe) == pytest.approx(1, abs=1e-5)
    assert shoe @ other_shoe > shoe @ mug + 0.3


def test_lsa_is_deterministic_and_survives_a_round_trip(tmp_path) -> None:
    lexicon = Lexicon.fit(SHELF)
    first, second = Lsa.fit(SHELF, lexicon, 8), Lsa.fit(SHELF, lexicon, 8)
    assert np.array_equal(first.components, second.components)
    first.save(tmp_path)
    again = load_encoder(tmp_path, lexicon, torch.device("cpu"))
    assert np.array_equal(again.encode(SHELF), first.encode(SHELF))


def test_lsa_of_fewer_texts_than_dimensions_still_has_its_width() -> None:
    encoder = fit_encoder("lsa", ["shoe", "mug"], Lexicon.fit(["shoe", "mug"]), 16, torch.device("cpu"))
    vectors = encoder.encode(["shoe", "", "never seen"])
    assert vectors.shape == (3, 16)
    assert np.isfinite(vectors).all()
    assert (vectors[1] == 0).all()


def test_product_texts_leave_out_the_description() -> None:
    frame = pd.DataFrame(
        {"title": ["lamp", "mug"], "brand": ["b", ""], "color": ["red", ""], "bullets": ["x" * 999, ""]}
    ).assign(description="never read")
    assert product_texts(frame, np.array([1, 0])) == ["mug   ", "lamp b red " + "x" * 200]


def test_texts_are_encoded_once(tmp_path) -> None:
    class Counting:
        dimensions, calls = 2, 0

        def encode(self, texts):
            self.calls += 1
            return np.ones((len(texts), 2), dtype=np.float32)

    encoder = Counting()
    first, second = (encode_once(encoder, ["a", "b"], "counting", tmp_path) for _ in range(2))
    assert np.array_equal(first, second)
    assert encoder.calls == 1
    encode_once(encoder, ["a", "c"], "counting", tmp_path)
    encode_once(encoder, ["a", "b"], "another", tmp_path)
    assert encoder.calls == 3


def test_a_graph_network_loads_neither_transformers_models_nor_scikit_learn() -> None:
    """They take seconds: the first is for frozen encoders alone, the second for training."""
    module = "esci_tournament.tasks.families.graph_network.model"
    code = f"import sys, {module}; print({{'transformers.modeling_utils', 'sklearn'}} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
