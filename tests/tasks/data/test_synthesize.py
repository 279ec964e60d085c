"""The generated world: deterministic, in the official format, with the documented labels and behaviour."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from esci_tournament.registry.errors import UsageError
from esci_tournament.registry.labels import LABELS
from esci_tournament.tasks.data import vocabulary
from esci_tournament.tasks.data.behaviour import edges
from esci_tournament.tasks.data.dataset import LOCALES, Dataset
from esci_tournament.tasks.data.layout import (
    EVENTS_FILE,
    EXAMPLES_COLUMNS,
    EXAMPLES_FILE,
    PRODUCTS_COLUMNS,
    PRODUCTS_FILE,
    WORLD_FILE,
    WORLD_PRODUCTS_FILE,
)
from esci_tournament.tasks.data.load import load_esci
from esci_tournament.tasks.data.synthesize import synthesize

FILES = (EXAMPLES_FILE, PRODUCTS_FILE, EVENTS_FILE, WORLD_FILE, WORLD_PRODUCTS_FILE)


@pytest.fixture(scope="module")
def noiseless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize(tmp_path_factory.mktemp("world") / "noiseless", queries=150, seed=1, noise=0.0)


def truth_of(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / WORLD_PRODUCTS_FILE)


def asked_types(queries: pd.Series, locales: pd.Series) -> np.ndarray:
    """Return the number of the type that each query names."""
    found = []
    for query, locale in zip(queries, locales, strict=True):
        named = [vocabulary.TYPES[locale].index(word) for word in query.split() if word in vocabulary.TYPES[locale]]
        assert len(named) == 1, query
        found += named
    return np.asarray(found)


def revealed(folder: Path) -> float:
    """Return how often the most clicked type of an uninformative product is its true one."""
    dataset, truth = load_esci(folder), truth_of(folder)
    clicks = edges(dataset, "clicks", np.zeros(0, dtype=np.uint64))
    clicks = clicks[truth["uninformative"].to_numpy()[clicks["product"]]]
    clicks = clicks.assign(type=asked_types(clicks["query"], clicks["locale"]))
    most = clicks.groupby("product")["type"].agg(lambda types: types.mode().iloc[0])
    return float((most.to_numpy() == truth["type"].to_numpy()[most.index]).mean())


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        synthesize(tmp_path / name, queries=24, seed=5)
    same = {file: (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in FILES}
    assert same == dict.fromkeys(FILES, True)


def test_another_seed_is_another_world(tmp_path: Path) -> None:
    versions = {load_esci(synthesize(tmp_path / str(seed), queries=24, seed=seed)).version for seed in (1, 2)}
    assert len(versions) == 2


def test_files_have_the_official_columns(tiny_world: Path) -> None:
    assert pq.read_schema(tiny_world / EXAMPLES_FILE).names == list(EXAMPLES_COLUMNS)
    assert pq.read_schema(tiny_world / PRODUCTS_FILE).names == list(PRODUCTS_COLUMNS)


def test_labels_follow_from_the_structure(noiseless: Path) -> None:
    """Read the rule off the words alone, beside the code that made the world."""
    dataset, truth = load_esci(noiseless), truth_of(noiseless)
    group = {kind: number for number, members in enumerate(vocabulary.GROUPS) for kind in members}
    partner = {one: other for couple in vocabulary.COUPLES for one, other in (couple, couple[::-1])}
    pairs = dataset.pairs
    kinds = asked_types(pairs["query"], pairs["locale"])
    for row, kind in zip(pairs.itertuples(), kinds, strict=True):
        product = truth.iloc[row.product]
        words = row.query.split()
        mine = {
            *(vocabulary.brands(row.locale)[product["brand_number"]].lower(),),
            vocabulary.COLORS[row.locale][product["color_number"]],
            vocabulary.FEATURES[row.locale][product["feature"]],
            vocabulary.TYPES[row.locale][product["type"]],
            *vocabulary.MODIFIERS[row.locale],
        }
        if product["type"] == kind and set(words) <= mine:
            expected = "E"
        elif group[product["type"]] == group[kind]:
            expected = "S"
        else:
            expected = "C" if group[product["type"]] == partner[group[kind]] else "I"
        assert LABELS[row.label] == expected, (row.query, dict(product))


def test_noise_is_the_share_of_labels_that_are_wrong(noiseless: Path, tmp_path: Path) -> None:
    noisy = synthesize(tmp_path / "noisy", queries=150, seed=1, noise=0.2)
    right, wrong = load_esci(noiseless).pairs, load_esci(noisy).pairs
    assert (right["product_id"].to_numpy() == wrong["product_id"].to_numpy()).all()
    assert (right["label"].to_numpy() != wrong["label"].to_numpy()).mean() == pytest.approx(0.2, abs=0.03)


def test_uninformative_products_say_nothing(tiny_world: Path, tiny_dataset: Dataset) -> None:
    truth = truth_of(tiny_world)
    products = tiny_dataset.products[truth["uninformative"].to_numpy()]
    assert len(products) / len(truth) == pytest.approx(0.2, abs=0.07)
    assert products["title"].str.fullmatch(r"(Item|Artículo|商品) \d+").all()
    assert (products[["brand", "color", "bullets", "description"]] == "").all(axis=None)


def test_queries_are_distinct_and_split_apart(tiny_dataset: Dataset) -> None:
    pairs = tiny_dataset.pairs
    assert pairs.groupby("query_key")["query_id"].nunique().max() == 1
    assert pairs.groupby("query_key")["split"].nunique().max() == 1
    share = pairs[pairs["split"] == "test"]["query_key"].nunique() / pairs["query_key"].nunique()
    assert share == pytest.approx(0.25, abs=0.1)
    assert set(pairs["locale"]) == set(LOCALES)


def test_each_action_is_rarer_and_more_precise(tiny_world: Path, tiny_dataset: Dataset) -> None:
    events, truth = tiny_dataset.events, truth_of(tiny_world)
    right = asked_types(events["query"], events["locale"]) == truth["type"].to_numpy()[events["product"]]
    by_action = pd.DataFrame({"action": events["action"], "right": right}).groupby("action", observed=True)["right"]
    counts, precision = by_action.size(), by_action.mean()
    assert counts["impression"] > counts["click"] > counts["add"] > counts["purchase"] > 0
    assert precision["impression"] < precision["click"] < precision["add"]


def test_most_searches_are_of_queries_that_nobody_judged(tiny_dataset: Dataset) -> None:
    searched = tiny_dataset.events["query_key"].unique()
    assert (~np.isin(searched, tiny_dataset.pairs["query_key"])).sum() > 2 * tiny_dataset.pairs["query_key"].nunique()


def test_behaviour_reveals_what_text_does_not(noiseless: Path) -> None:
    assert revealed(noiseless) > 0.8


def test_shuffled_behaviour_reveals_nothing(tmp_path: Path) -> None:
    folder = synthesize(tmp_path / "shuffled", queries=150, seed=1, noise=0.0, behaviour="shuffled")
    assert revealed(folder) < 0.25  # chance is 1 in 12


def test_a_world_without_behaviour_has_no_events_even_over_an_older_one(tmp_path: Path) -> None:
    synthesize(tmp_path, queries=24, seed=1)
    synthesize(tmp_path, queries=24, seed=1, behaviour=False)
    assert load_esci(tmp_path).events is None


def test_the_world_says_how_it_was_made(tiny_world: Path, tiny_dataset: Dataset) -> None:
    world = json.loads((tiny_world / WORLD_FILE).read_text(encoding="utf-8"))
    assert (world["queries"], world["seed"], world["pairs"]) == (120, 7, len(tiny_dataset.pairs))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"queries": 3}, "queries is 3"),
        ({"noise": 1.0}, "noise is 1.0"),
        ({"behaviour": "loud"}, "behaviour is 'loud'"),
        ({"uninformative_share": -0.1}, "uninformative_share is -0.1"),
        ({"queries": 6000, "products_per_query": 0.01, "behaviour": False}, "distinct queries"),
    ],
)
def test_impossible_worlds_are_refused(wrong: dict, says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=says):
        synthesize(tmp_path / "world", **wrong)
    assert not list(tmp_path.rglob("*.parquet"))
