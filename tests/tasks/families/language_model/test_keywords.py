"""TF-IDF keywords."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from esci_tournament.tasks.families.language_model.keywords import Keywords

TEXTS = [
    "the quick kettle with the blue handle", "the quick lamp", "the blue mug with a handle", "the lamp with a bulb",
    "湯沸かしケトル 1.5L ステンレス 湯沸かし", "ステンレス マグ",
]  # fmt: skip
KEYWORDS = Keywords.of(pd.DataFrame({"description": TEXTS}), ("description",))


@pytest.mark.parametrize("text", TEXTS[:4])
def test_weights_are_those_of_scikit_learn(text):
    vectorizer = TfidfVectorizer(norm=None, token_pattern=r"\w+").fit(TEXTS[:4])
    weights = dict(zip(vectorizer.get_feature_names_out(), vectorizer.transform([text]).toarray()[0], strict=True))
    keywords = Keywords.of(pd.DataFrame({"description": TEXTS[:4]}), ("description",))
    chosen = keywords.shorten(text, 2).split()
    least = min(weights[word] for word in chosen)
    assert all(weight <= least + 1e-9 for word, weight in weights.items() if word not in chosen)


def test_rare_words_stay_in_the_order_of_the_text():
    assert KEYWORDS.shorten(TEXTS[0], 2) == "the kettle"  # "the" stands twice in this one
    assert KEYWORDS.shorten("with a quick kettle the the lamp", 2) == "kettle the"


def test_japanese_is_cut_where_the_script_changes():
    assert KEYWORDS.shorten(TEXTS[4], 1) in TEXTS[4].split()[0]
    assert len(KEYWORDS.shorten(TEXTS[4], 3).split()) == 3


def test_a_short_text_is_left_as_it_is():
    assert KEYWORDS.shorten("The Lamp!", 2) == "The Lamp!"


@given(st.text(max_size=60), st.integers(1, 5))
def test_no_text_yields_more_words_than_asked_for_or_words_that_it_lacks(text, count):
    short = KEYWORDS.shorten(text, count)
    assert short == text or (len(short.split()) <= count and all(word in text.lower() for word in short.split()))


def test_what_is_saved_counts_the_same(tmp_path):
    KEYWORDS.save(tmp_path)
    assert np.array_equal(Keywords.load(tmp_path).counts, KEYWORDS.counts)
    assert KEYWORDS.counts[-1] == len(TEXTS)
