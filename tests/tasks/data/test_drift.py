"""Drift: reported when the distribution has changed, not for another sample of the same world."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from esci_tournament.registry.labels import LABELS
from esci_tournament.tasks.data.dataset import Dataset
from esci_tournament.tasks.data.drift import DriftLimits, DriftReport, measure_drift, read_drift
from esci_tournament.tasks.data.language import languages_of
from esci_tournament.tasks.data.load import load_esci
from esci_tournament.tasks.data.synthesize import synthesize


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("drift") / "world"
    return load_esci(synthesize(folder, queries=400, seed=3, searches_per_query=6))


def only(world: Dataset, keys: np.ndarray) -> Dataset:
    """Return the world as if these queries alone had been judged and asked."""
    pairs = world.pairs[world.pairs["query_key"].isin(keys)].reset_index(drop=True)
    events = world.events[world.events["query_key"].isin(keys)].reset_index(drop=True)
    return replace(world, pairs=pairs, events=events)


def halves(world: Dataset, seed: int) -> tuple[Dataset, Dataset]:
    keys = np.union1d(world.pairs["query_key"], world.events["query_key"])
    first = np.random.default_rng(seed).choice(keys, len(keys) // 2, replace=False)
    return only(world, first), only(world, np.setdiff1d(keys, first))


@pytest.mark.parametrize("seed", range(4))
def test_another_sample_of_the_same_world_has_not_drifted(world: Dataset, seed: int) -> None:
    report = measure_drift(*halves(world, seed))
    assert report.drifted == ()
    assert len(report.rows) > 30
    assert report.sentence.startswith("No drift in")


def test_data_has_not_drifted_from_itself(world: Dataset) -> None:
    assert {row.value for row in measure_drift(world, world).rows} == {0.0}


def more_irrelevant(world: Dataset) -> Dataset:
    pairs = world.pairs.copy()
    exact = np.flatnonzero((pairs["label"] == LABELS.index("E")) & (pairs["locale"] == "us"))
    pairs.loc[exact[::2], "label"] = np.int8(LABELS.index("I"))
    return replace(world, pairs=pairs)


def longer_titles(world: Dataset) -> Dataset:
    products = world.products.copy()
    products["title"] = products["title"].astype(object) + " - new, in its original packaging"
    return replace(world, products=products)


def spanish_in_us(world: Dataset) -> Dataset:
    pairs = world.pairs.copy()
    us = (pairs["locale"] == "us").to_numpy()
    words = pairs["query"].to_numpy(dtype=object, copy=True)
    words[us] = [f"quiero una {text} para la casa de mi abuela" for text in words[us]]
    return replace(world, pairs=pairs.assign(query=words))


def fewer_purchases(world: Dataset) -> Dataset:
    gone = world.events["action"].isin(["purchase", "click"]) & (np.arange(len(world.events)) % 4 > 0)
    return replace(world, events=world.events[~gone].reset_index(drop=True))


def no_more_jp(world: Dataset) -> Dataset:
    return replace(world, pairs=world.pairs[world.pairs["locale"] != "jp"].reset_index(drop=True))


@pytest.mark.parametrize(
    ("shift", "column", "scope", "words"),
    [
        (more_irrelevant, "class mix", "us", "class mix in us: "),
        (longer_titles, "title length", "es", "title length in es: the median was "),
        (spanish_in_us, "language of queries", "us", "language of queries in us: es "),
        (fewer_purchases, "actions", "all", "actions: "),
        (no_more_jp, "locale mix", "all", "locale mix: jp "),
    ],
)
def test_what_has_shifted_is_named(
    world: Dataset, shift: Callable[[Dataset], Dataset], column: str, scope: str, words: str
) -> None:
    before, now = halves(world, 0)
    report = measure_drift(before, shift(now))
    found = {(row.column, row.scope): row for row in report.drifted}
    assert (column, scope) in found, [row.words for row in report.drifted]
    row = found[column, scope]
    assert row.value >= row.threshold
    assert row.p_value is not None
    assert row.p_value <= 0.05
    assert row.words.startswith(words)


def test_a_shift_in_one_locale_is_not_reported_of_the_others(world: Dataset) -> None:
    before, now = halves(world, 0)
    assert {row.scope for row in measure_drift(before, more_irrelevant(now)).drifted} <= {"all", "us"}


def test_behaviour_that_ends_has_drifted(world: Dataset) -> None:
    rows = measure_drift(world, replace(world, events=None)).drifted
    assert [(row.column, row.p_value) for row in rows] == [("actions", None)]
    assert "there are none now" in rows[0].words


def test_the_sample_is_fixed_by_its_seed_and_says_its_size(world: Dataset) -> None:
    before, now = halves(world, 0)
    limits = DriftLimits(queries=100, seed=5)
    report = measure_drift(before, now, limits)
    assert report == measure_drift(before, now, limits)
    assert report != measure_drift(before, now, replace(limits, seed=6))
    assert report.queries == (100, 100)


def test_a_report_is_stored_as_json(world: Dataset, tmp_path: Path) -> None:
    before, now = halves(world, 0)
    report = measure_drift(before, more_irrelevant(now))
    report.write(tmp_path)
    read = read_drift(tmp_path)
    assert read == json.loads(json.dumps(report.to_dict()))
    assert read["sentence"] == report.sentence
    assert isinstance(report, DriftReport)


def test_languages_are_told_apart() -> None:
    texts = pd.Series(
        ["stainless steel water bottle for the kitchen", "botella de agua para la cocina", "水筒 赤い", " "]
    )
    assert languages_of(texts).tolist() == ["en", "es", "ja", "unknown"]
