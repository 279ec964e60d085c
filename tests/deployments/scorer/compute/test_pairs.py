"""Pairs of a page: as members read them, in parts, and as they go to another process."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from esci_tournament.deployments.scorer.catalogue import TEXTS, Text
from esci_tournament.deployments.scorer.compute.pairs import Pairs, frames_of

TEXT = st.builds(Text, *[st.text(max_size=8)] * 6)
PAIRS = st.builds(Pairs, st.text(max_size=8), st.sampled_from(["us", "es", "jp"]), st.lists(TEXT, max_size=4))


def facts(pairs: Pairs) -> tuple[str, str, list[Text]]:
    return pairs.query, pairs.locale, pairs.texts


@given(PAIRS)
def test_pairs_are_the_same_in_another_process(pairs: Pairs) -> None:
    assert facts(Pairs.decoded(memoryview(pairs.encoded))) == facts(pairs)


@settings(max_examples=40)
@given(st.lists(PAIRS.filter(len), min_size=1, max_size=3))
def test_requests_together_read_as_each_alone_one_after_the_other(parts: list[Pairs]) -> None:
    pairs, products = frames_of(parts)
    read = products.iloc[pairs["product"]]
    assert list(zip(pairs["query"], pairs["locale"], strict=True)) == [
        (part.query, part.locale) for part in parts for _ in part.texts
    ]
    assert [Text(*row) for row in read[["product_id", *TEXTS]].itertuples(index=False)] == [
        text for part in parts for text in part.texts
    ]
    assert list(read["locale"]) == list(pairs["locale"])


@given(PAIRS, st.data())
def test_a_part_has_the_rows_that_were_asked_for(pairs: Pairs, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(pairs)))
    stop = data.draw(st.integers(start, len(pairs)))
    assert facts(pairs.between(start, stop)) == (pairs.query, pairs.locale, pairs.texts[start:stop])
    if len(pairs):
        rows = data.draw(st.lists(st.integers(0, len(pairs) - 1), max_size=5))
        assert pairs.part(rows).texts == [pairs.texts[row] for row in rows]


def test_what_all_members_read_is_made_once() -> None:
    pairs = Pairs("lamp", "us", [Text("P0", "red lamp", "", "", "", "")])
    assert pairs.frames is pairs.frames
    assert pairs.between(0, 1).encoded is pairs.encoded
    assert pairs.frames[0]["product"].dtype == np.int32
