"""Frozen text features: hashed n-grams, the overlap of two texts, and the vectors computed from them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from esci_tournament.tasks.families.graph_network.encoders import (
    Lsa,
    encode_once,
    fit_encoder,
    load_encoder,
    product_texts,
)
from esci_tournament.tasks.families.lexicon import Lexicon

SHELF = [
    f"{color} {kind} {number}"
    for number, (color, kind) in enumerate(
        (color, kind)
        for color in ("red", "blue", "green")
        for kind in ("running shoe", "coffee mug", "desk lamp", "椅子")
    )
]


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
