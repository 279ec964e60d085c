"""Splits share no query, and a query's role never changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esci_tournament.registry.errors import DataError
from esci_tournament.tasks.candidates.provenance import Seen
from esci_tournament.tasks.data.dataset import Dataset, query_keys
from esci_tournament.tasks.data.split import assign_roles, crossing_rows, fit_plans, held_out_keys, trained_keys

MODES = ("blend", "kfold")
words = st.text("abcde é", min_size=1, max_size=5).filter(str.strip)
judged = st.lists(st.tuples(words, st.sampled_from(["us", "es", "jp"])), min_size=40, max_size=80)


def made(queries: list[tuple[str, str]], test_share: float = 0.3) -> Dataset:
    """Return a data set with one pair an entry; a query is in the test split by its key."""
    texts, locales = [text for text, _ in queries], [locale for _, locale in queries]
    keys = query_keys(texts, locales)
    pairs = pd.DataFrame(
        {
            "example_id": np.arange(len(keys)),
            "query_id": (keys >> np.uint64(1)).astype(np.int64),
            "query": texts,
            "query_key": keys,
            "locale": pd.Categorical(locales),
            "product": np.int32(0),
            "label": np.int8(0),
            "split": pd.Categorical(np.where(keys / 2.0**64 < test_share, "test", "train"), ["train", "test"]),
        }
    )
    return Dataset(pairs, pd.DataFrame(), None, "version", Path("nowhere"))


def roles_by_query(dataset: Dataset, mode: str) -> dict[tuple[int, str], set[tuple[str, int]]]:
    roles = assign_roles(dataset, mode, 0.25, 0.1, 5)
    sides: dict[tuple[int, str], set[tuple[str, int]]] = {}
    for key, role, fold in zip(dataset.pairs["query_key"], roles["role"], roles["fold"], strict=True):
        sides.setdefault(key, set()).add((role, fold))
    return sides


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=40)
@given(queries=judged)
def test_every_query_has_one_side(mode: str, queries: list[tuple[str, str]]) -> None:
    assert all(len(sides) == 1 for sides in roles_by_query(made(queries), mode).values())


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=40)
@given(queries=judged, more=judged, seed=st.integers(0, 99))
def test_sides_outlive_new_rows_and_another_order(
    mode: str, queries: list[tuple[str, str]], more: list[tuple[str, str]], seed: int
) -> None:
    before = roles_by_query(made(queries), mode)
    grown = [*queries, *more]
    order = np.random.default_rng(seed).permutation(len(grown))
    after = roles_by_query(made([grown[place] for place in order]), mode)
    assert {key: after[key] for key in before} == before


@pytest.mark.parametrize("mode", MODES)
def test_plans_are_query_disjoint(mode: str, tiny_dataset: Dataset) -> None:
    roles = assign_roles(tiny_dataset, mode, 0.25, 0.15, 3)
    for plan in fit_plans(tiny_dataset, roles, mode, 0.15):
        fit, validation, score = (
            set(trained_keys(tiny_dataset.pairs, rows)) for rows in (plan.fit, plan.validation, plan.score)
        )
        assert not fit & validation
        assert not (fit | validation) & score
        assert set(held_out_keys(tiny_dataset.pairs, plan)) == set(tiny_dataset.pairs["query_key"]) - fit


def test_blend_plan_scores_blend_and_test(tiny_dataset: Dataset) -> None:
    roles = assign_roles(tiny_dataset, "blend", 0.25, 0.15, 3)
    (plan,) = fit_plans(tiny_dataset, roles, "blend", 0.15)
    assert set(roles["role"].iloc[plan.score]) == {"blend", "test"}
    assert len(plan.fit) + len(plan.validation) + len(plan.score) == len(tiny_dataset.pairs)


def test_kfold_plans_score_every_train_pair_once_and_test_once(tiny_dataset: Dataset) -> None:
    roles = assign_roles(tiny_dataset, "kfold", 0.25, 0.15, 3)
    plans = fit_plans(tiny_dataset, roles, "kfold", 0.15)
    assert [plan.name for plan in plans] == ["fold-0", "fold-1", "fold-2", "full"]
    assert sorted(np.concatenate([plan.score for plan in plans])) == list(range(len(tiny_dataset.pairs)))


@pytest.mark.parametrize("mode", MODES)
def test_no_plan_learns_from_the_test_split(mode: str, tiny_dataset: Dataset) -> None:
    roles = assign_roles(tiny_dataset, mode, 0.25, 0.15, 3)
    test = set(tiny_dataset.pairs.loc[tiny_dataset.pairs["split"] == "test", "query_key"])
    for plan in fit_plans(tiny_dataset, roles, mode, 0.15):
        assert not test & set(trained_keys(tiny_dataset.pairs, np.concatenate([plan.fit, plan.validation])))


@pytest.mark.parametrize("mode", MODES)
def test_train_pairs_of_a_test_query_are_in_quarantine(mode: str, tiny_dataset: Dataset) -> None:
    pairs = tiny_dataset.pairs.copy()
    query = pairs.loc[pairs["split"] == "train", "query_id"].iloc[0]
    own = pairs.index[pairs["query_id"] == query]
    pairs.loc[own[0], "split"] = "test"
    dataset = replace(tiny_dataset, pairs=pairs)
    roles = assign_roles(dataset, mode, 0.25, 0.15, 3)
    assert set(roles.loc[own[1:], "role"]) == {"quarantine"}
    used = np.concatenate(
        [np.concatenate([plan.fit, plan.validation]) for plan in fit_plans(dataset, roles, mode, 0.15)]
    )
    assert not set(own) & set(used)


def test_a_query_crosses_by_its_id_too() -> None:
    dataset = made([("one", "us"), ("other", "us")])
    pairs = dataset.pairs.assign(query_id=7, split=pd.Categorical(["train", "test"], ["train", "test"]))
    assert crossing_rows(pairs).tolist() == [True, False]


@settings(max_examples=30)
@given(queries=judged, data=st.data())
def test_a_drawn_test_split_keeps_queries_of_one_text_or_one_id_together(queries, data):
    dataset = made(queries, test_share=0)
    ids = data.draw(st.lists(st.integers(0, 12), min_size=len(queries), max_size=len(queries)))
    dataset.pairs["query_id"] = ids
    roles = assign_roles(dataset, "blend", 0.25, 0.1, 5, test_share=0.4)["role"]
    test = (roles == "test").to_numpy()
    for same in (["query_key"], ["locale", "query_id"]):
        sides = dataset.pairs.assign(test=test).groupby(same, observed=True)["test"].nunique()
        assert (sides == 1).all()
    assert not (roles == "quarantine").any()
    shuffled = dataset.pairs.sample(frac=1, random_state=0)
    again = assign_roles(replace(dataset, pairs=shuffled), "blend", 0.25, 0.1, 5, test_share=0.4)["role"]
    assert again.sort_index().equals(roles)


def test_a_drawn_test_split_has_about_the_share_that_was_asked_for_and_a_given_one_stays() -> None:
    queries = [(f"query {number}", "us") for number in range(4000)]
    drawn = assign_roles(made(queries, test_share=0), "blend", 0.25, 0.1, 5, test_share=0.2)["role"]
    assert (drawn == "test").mean() == pytest.approx(0.2, abs=0.02)
    given_split = made(queries)
    assert assign_roles(given_split, "blend", 0.25, 0.1, 5, test_share=0.2).equals(
        assign_roles(given_split, "blend", 0.25, 0.1, 5)
    )


def test_who_was_trained_on_the_train_split_has_seen_a_drawn_test_split() -> None:
    dataset = made([(f"query {number}", "us") for number in range(50)], test_share=0)
    assert Seen(splits=("train",)).of(dataset.pairs).all()


def test_blend_share_is_about_what_was_asked_for() -> None:
    dataset = made([(f"query {number}", "us") for number in range(4000)], test_share=0.0)
    share = (assign_roles(dataset, "blend", 0.25, 0.1, 5)["role"] == "blend").mean()
    assert share == pytest.approx(0.25, abs=0.03)


def test_too_few_queries_are_refused() -> None:
    dataset = made([("one", "us")], test_share=0.0)
    roles = assign_roles(dataset, "blend", 0.25, 0.1, 5)
    with pytest.raises(DataError, match="holds no pair"):
        fit_plans(dataset, roles, "blend", 0.1)
