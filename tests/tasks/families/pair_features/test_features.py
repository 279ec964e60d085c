"""The features of a pair: by example, and independent of all other pairs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esci_tournament.tasks.data.dataset import LOCALES
from esci_tournament.tasks.families.pair_features.features import names, pair_features
from esci_tournament.tasks.families.pair_features.popularity import Popularity
from esci_tournament.tasks.families.pair_features.vocabulary import Vocabulary

NONE = Popularity(np.zeros(0, np.uint64), np.zeros((0, 0), np.float32))


def shelf(*rows: dict[str, str]) -> pd.DataFrame:
    empty = dict.fromkeys(("title", "brand", "color", "bullets", "description"), "")
    frame = pd.DataFrame(
        [{"product_id": f"P{number}", "locale": "us", **empty, **row} for number, row in enumerate(rows)]
    )
    return frame.assign(locale=pd.Categorical(frame["locale"], categories=LOCALES))


def pairs_of(*rows: tuple[str, int], locale: str = "us") -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["query", "product"])
    return frame.assign(locale=pd.Categorical([locale] * len(frame), categories=LOCALES))


CATALOGUE = shelf(
    {"title": "Nord Pol Winter Boot 42 Black", "brand": "Nord Pol", "color": "Black"},
    {"title": "Lumo Desk Lamp 60W", "brand": "Lumo", "color": "White", "bullets": "needs 230v"},
    *[{"title": "Nord Pol boot", "brand": "Nord Pol", "color": "Black / White"}] * 3,
    *[{"title": "Lumo lamp", "brand": "Lumo", "color": "white"}] * 3,
    {"title": "ナイキ スニーカー", "brand": "ナイキ", "color": "黒", "locale": "jp"},
    {"title": "ナイキ シューズ", "brand": "ナイキ", "locale": "jp"},
    {"title": "one of a kind", "brand": "boot"},
)
VOCABULARY = Vocabulary.fit(["winter boot", "desk lamp"], CATALOGUE)


def named(query: str, product: int) -> dict[str, float]:
    values = pair_features(pairs_of((query, product)), CATALOGUE, VOCABULARY, NONE)
    return dict(zip(names(()), values[0].tolist(), strict=True))


def test_a_brand_is_named_matched_or_anothers() -> None:
    own, other, neither = named("nord pol boots", 0), named("LUMO boots", 0), named("winter boots", 0)
    assert (own["brand_named"], own["brand_words_named"], own["other_brand_named"]) == (1, 1, 0)
    assert (other["brand_named"], other["brand_words_named"], other["other_brand_named"]) == (0, 0, 1)
    assert (neither["brand_named"], neither["other_brand_named"]) == (0, 0)
    assert named("pole boots", 0)["brand_named"] == 0  # whole words
    assert named("ナイキ靴", 8)["brand_named"] == 1  # but not in scripts without spaces
    assert named("boot black", 1)["other_brand_named"] == 0  # a brand of one product is no brand


def test_a_color_is_named_matched_or_anothers() -> None:
    same, other, none = named("black boot", 0), named("white boot", 0), named("boot", 0)
    assert (same["color_named"], same["color_matched"], same["other_color_named"]) == (1, 1, 0)
    assert (other["color_named"], other["color_matched"], other["other_color_named"]) == (1, 0, 1)
    assert (none["color_named"], none["color_matched"], none["other_color_named"]) == (0, 0, 0)


def test_numbers_words_and_order() -> None:
    found = named("desk lamp 60w 230v", 1)
    assert (found["numbers_named"], found["numbers_in_title"], found["numbers_in_body"]) == (2, 0.5, 0.5)
    assert named("desk lamp", 1)["numbers_in_title"] == -1  # none is named
    assert named("desk lamp", 1)["query_in_title"] == 1
    assert named("lamp desk", 1)["query_in_title"] == 0
    assert named("lamp desk", 1)["neighbours_in_title"] == 0
    assert named("desk lamp", 1)["first_word_at"] == 1
    assert named("winter", 1)["first_word_at"] == -1
    assert named("desk lamp", 1)["words_shared_title"] == pytest.approx(1)


@given(
    st.lists(st.tuples(st.text(max_size=12) | st.sampled_from(["nord pol boot 42", "ナイキ", "white lumo"]),
                       st.integers(0, len(CATALOGUE) - 1)), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
)  # fmt: skip
def test_a_pair_has_the_same_features_on_any_page(rows: list[tuple[str, int]], random) -> None:
    together = pair_features(pairs_of(*rows), CATALOGUE, VOCABULARY, NONE)
    assert together.shape == (len(rows), len(names(())))
    assert np.isfinite(together).all()
    order = random.sample(range(len(rows)), len(rows))
    shuffled = pair_features(pairs_of(*(rows[place] for place in order)), CATALOGUE, VOCABULARY, NONE)
    assert (shuffled == together[order]).all()
    for place, row in enumerate(rows):
        assert (pair_features(pairs_of(row), CATALOGUE, VOCABULARY, NONE)[0] == together[place]).all()


def test_there_may_be_no_pair_and_an_unknown_locale() -> None:
    assert pair_features(pairs_of(), CATALOGUE, VOCABULARY, NONE).shape == (0, len(names(())))
    other = pairs_of(("boot", 0)).assign(locale="de")
    assert pair_features(other, CATALOGUE, VOCABULARY, NONE)[0, 0] == -1
