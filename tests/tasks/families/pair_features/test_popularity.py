"""Counts of products: who counts, who does not, and what has changed."""

from __future__ import annotations

import numpy as np
import pandas as pd

from esci_tournament.tasks.families.pair_features.popularity import Popularity, of_own_query

PRODUCTS = pd.DataFrame({"product_id": ["A", "B", "C"], "locale": ["us", "us", "es"]})
EDGES = pd.DataFrame(
    {
        "query_key": np.array([1, 2, 2, 1], dtype=np.uint64),
        "product": np.array([0, 0, 2, 0], dtype=np.int32),
        "relation": ["clicks", "clicks", "clicks", "purchases"],
        "weight": np.array([2, 1, 4, 0.5], dtype=np.float32),
    }
)
BOTH = ("clicks", "purchases")


def test_weights_add_up_and_queries_are_counted_once() -> None:
    counts = Popularity.of(EDGES, BOTH, PRODUCTS)
    assert counts.find(PRODUCTS, np.array([2, 1, 0])).tolist() == [[4, 1, 0, 0], [0, 0, 0, 0], [3, 2, 0.5, 1]]
    one = Popularity.of(EDGES[:3], ("clicks",), PRODUCTS)
    assert one.find(PRODUCTS, np.array([0])).tolist() == [[3, 2]]


def test_what_a_pairs_own_query_did_is_not_seen() -> None:
    pairs = pd.DataFrame({"query_key": np.array([1, 2, 3], np.uint64), "product": np.array([0, 0, 0], np.int32)})
    own = of_own_query(EDGES, BOTH, pairs)
    counts = Popularity.of(EDGES, BOTH, PRODUCTS).find(PRODUCTS, pairs["product"].to_numpy())
    for row, key in enumerate(pairs["query_key"]):
        without = Popularity.of(EDGES[EDGES["query_key"] != key], BOTH, PRODUCTS)
        assert (counts[row] - own[row] == without.find(PRODUCTS, np.array([0]))[0]).all()


def test_a_product_is_known_by_id_and_locale() -> None:
    counts = Popularity.of(EDGES, BOTH, PRODUCTS)
    elsewhere = pd.DataFrame({"product_id": ["C", "C"], "locale": ["us", "es"]})
    assert counts.find(elsewhere, np.array([0, 1]))[:, 0].tolist() == [0, 4]


def test_changes_are_counted_by_product() -> None:
    before = Popularity.of(EDGES, BOTH, PRODUCTS)
    assert before.changed(before) == 0
    assert before.changed(Popularity.of(EDGES[1:], BOTH, PRODUCTS)) == 1  # a click less
    assert before.changed(Popularity.of(EDGES[:0], BOTH, PRODUCTS)) == 2
    assert before.only(PRODUCTS.iloc[[2]]).find(PRODUCTS, np.array([0, 2]))[:, 0].tolist() == [0, 4]


def test_without_relations_there_is_nothing_to_count(tmp_path) -> None:
    empty = Popularity.of(None, (), PRODUCTS)
    empty.save(tmp_path)
    assert Popularity.load(tmp_path).find(PRODUCTS, np.arange(3)).shape == (3, 0)
    assert of_own_query(None, (), pd.DataFrame({"query_key": [1], "product": [0]})).shape == (1, 0)
