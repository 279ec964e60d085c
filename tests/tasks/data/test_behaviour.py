"""Behaviour: edges count events, and held-out queries leave no edges."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from esci_tournament.registry.errors import CandidateError, UsageError
from esci_tournament.tasks.data.behaviour import (
    PRODUCT_EDGE_COLUMNS,
    QUERY_EDGE_COLUMNS,
    SESSION_PRODUCTS,
    edges,
)
from esci_tournament.tasks.data.dataset import Dataset, query_key
from esci_tournament.tasks.data.relations import BUILT_IN
from esci_tournament.tasks.data.split import assign_roles, fit_plans, held_out_keys

RELATIONS = [one.name for one in BUILT_IN]
QUERY_RELATIONS = [one.name for one in BUILT_IN if one.ends == "query"]
PRODUCT_RELATIONS = [one.name for one in BUILT_IN if one.ends == "product"]
NOBODY = np.zeros(0, dtype=np.uint64)


def planted(dataset: Dataset, rows: list[tuple[str, str, str, int, str]]) -> Dataset:
    """Replace the events by (session, query, locale, product, action)."""
    frame = pd.DataFrame(rows, columns=["session", "query", "locale", "product", "action"])
    frame["time"] = pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(len(frame)), unit="s")
    frame["client"] = "client"
    frame["query_key"] = [
        query_key(query, locale) for query, locale in zip(frame["query"], frame["locale"], strict=True)
    ]
    frame["product"] = frame["product"].astype(np.int32)
    return replace(dataset, events=frame)


def us_query(dataset: Dataset, split: str) -> str:
    pairs = dataset.pairs
    return pairs.loc[(pairs["split"] == split) & (pairs["locale"] == "us"), "query"].iloc[0]


@pytest.mark.parametrize("relation", QUERY_RELATIONS)
def test_query_edges_have_the_columns_of_the_contract(relation: str, tiny_dataset: Dataset) -> None:
    found = edges(tiny_dataset, relation, NOBODY)
    assert tuple(found.columns) == QUERY_EDGE_COLUMNS
    assert (str(found["query_key"].dtype), str(found["product"].dtype)) == ("uint64", "int32")
    assert found["weight"].dtype == np.float32
    assert not found.duplicated(["query_key", "product"]).any()
    assert set(found["relation"]) == {relation}


@pytest.mark.parametrize("relation", PRODUCT_RELATIONS)
def test_product_edges_go_both_ways_within_a_locale(relation: str, tiny_dataset: Dataset) -> None:
    found = edges(tiny_dataset, relation, NOBODY)
    assert tuple(found.columns) == PRODUCT_EDGE_COLUMNS
    assert len(found)
    there = set(zip(found["source"], found["product"], strict=True))
    assert there == {(product, source) for source, product in there}
    locale = tiny_dataset.products["locale"].to_numpy()
    assert (locale[found["source"]] == locale[found["product"]]).all()


def test_weights_are_log_counts(tiny_dataset: Dataset) -> None:
    dataset = planted(tiny_dataset, [("s", "never judged", "us", 3, "click")] * 4)
    found = edges(dataset, "clicks", NOBODY)
    assert found["weight"].tolist() == pytest.approx([np.log1p(4)])


def test_impressions_unite_judged_pairs_and_impression_events(tiny_dataset: Dataset) -> None:
    pair = tiny_dataset.pairs[tiny_dataset.pairs["split"] == "train"].iloc[0]
    rows = [("s", pair["query"], pair["locale"], pair["product"], "impression")]
    found = edges(planted(tiny_dataset, rows), "impressions", NOBODY)
    judged = tiny_dataset.pairs[tiny_dataset.pairs["split"] == "train"]
    assert len(found) == len(judged)
    seen_twice = found[found["weight"] > np.log1p(1) + 1e-6]
    assert seen_twice[["query_key", "product"]].to_numpy().tolist() == [[pair["query_key"], pair["product"]]]


# A brand is text of the catalogue: no query stands behind `same_brand`.
@pytest.mark.parametrize("relation", [relation for relation in RELATIONS if relation != "same_brand"])
def test_a_planted_leak_never_comes_out(relation: str, tiny_dataset: Dataset) -> None:
    """Two products that only test, blend and validation queries tie to anything: no edge may know of them."""
    roles = assign_roles(tiny_dataset, "blend", 0.25, 0.15, 3)
    (plan,) = fit_plans(tiny_dataset, roles, "blend", 0.15)
    held_out = held_out_keys(tiny_dataset.pairs, plan)
    innocent = tiny_dataset.pairs.iloc[plan.fit]
    leak = [product for product in range(len(tiny_dataset.products)) if product not in set(innocent["product"])][:2]
    rows = [
        ("s", "nobody judged this", "us", product, action) for product in (0, 1) for action in ("click", "purchase")
    ]
    rows += [("s", "nobody judged this", "us", 0, action) for action in ("impression", "add")]
    for role in ("test", "blend", "validation"):
        query = tiny_dataset.pairs[(roles["role"] == role) & (tiny_dataset.pairs["locale"] == "us")].iloc[0]["query"]
        # The same query as somebody else types it: capitals and white space must not get it through.
        for spelling in (query, f"  {query.upper()} "):
            rows += [
                (session, spelling, "us", product, action)
                for session in ("s", role)
                for product in leak
                for action in ("impression", "click", "add", "purchase")
            ]
    found = edges(planted(tiny_dataset, rows), relation, held_out)
    assert len(found)
    assert not found["product"].isin(leak).any()
    if "query_key" in found:
        assert not np.isin(found["query_key"].to_numpy(), held_out).any()


def test_test_queries_are_held_out_even_if_the_caller_forgets(tiny_dataset: Dataset) -> None:
    rows = [("s", us_query(tiny_dataset, "test"), "us", 0, "click"), ("s", "nobody judged this", "us", 1, "click")]
    assert edges(planted(tiny_dataset, rows), "clicks", NOBODY)["product"].tolist() == [1]


def test_labels_are_never_read(tiny_dataset: Dataset) -> None:
    blind = replace(tiny_dataset, pairs=tiny_dataset.pairs.drop(columns="label"))
    for relation in RELATIONS:
        pd.testing.assert_frame_equal(edges(blind, relation, NOBODY), edges(tiny_dataset, relation, NOBODY))


def test_a_long_session_is_capped(tiny_dataset: Dataset) -> None:
    rows = [("s", "everything", "us", product, "click") for product in range(SESSION_PRODUCTS + 15)]
    found = edges(planted(tiny_dataset, rows), "same_session", NOBODY)
    assert len(found) == SESSION_PRODUCTS * (SESSION_PRODUCTS - 1)


def test_bought_together_counts_purchases_of_one_session(tiny_dataset: Dataset) -> None:
    rows = [("one", "a", "us", 1, "purchase"), ("one", "b", "us", 2, "purchase"), ("two", "b", "us", 3, "purchase")]
    rows += [("one", "b", "us", 4, "click")]
    found = edges(planted(tiny_dataset, rows), "bought_together", NOBODY)
    assert found[["source", "product"]].to_numpy().tolist() == [[1, 2], [2, 1]]


def test_same_brand_ties_one_brand_in_a_bounded_number(tiny_dataset: Dataset) -> None:
    found = edges(tiny_dataset, "same_brand", NOBODY)
    brand = tiny_dataset.products["brand"].to_numpy(object)
    assert (brand[found["source"]] == brand[found["product"]]).all()
    assert (brand[found["source"]] != "").all()
    assert found["source"].value_counts().max() <= 8


def test_a_relation_without_its_events_says_so(tiny_dataset: Dataset) -> None:
    quiet = replace(tiny_dataset, events=None)
    for relation in ("clicks", "adds", "purchases", "all", "bought_together", "same_session"):
        with pytest.raises(CandidateError, match=f"relation {relation}.*no behaviour events"):
            edges(quiet, relation, NOBODY)
    assert len(edges(quiet, "impressions", NOBODY)) == (tiny_dataset.pairs["split"] == "train").sum()


def test_a_relation_without_its_action_says_so(tiny_dataset: Dataset) -> None:
    with pytest.raises(CandidateError, match="no event purchase"):
        edges(planted(tiny_dataset, [("s", "a", "us", 1, "click")]), "purchases", NOBODY)


def test_an_unknown_relation_is_refused(tiny_dataset: Dataset) -> None:
    with pytest.raises(UsageError, match="'kisses'"):
        edges(tiny_dataset, "kisses", NOBODY)  # type: ignore[arg-type]


def test_events_of_unknown_products_are_left_out(tiny_dataset: Dataset) -> None:
    rows = [("s", "a", "us", -1, "click"), ("s", "a", "us", 2, "click")]
    assert edges(planted(tiny_dataset, rows), "clicks", NOBODY)["product"].tolist() == [2]


def test_edges_are_sorted(tiny_dataset: Dataset) -> None:
    found = edges(tiny_dataset, "clicks", NOBODY)
    order = list(zip(found["query_key"], found["product"], strict=True))
    assert all(one < other for one, other in pairwise(order))
