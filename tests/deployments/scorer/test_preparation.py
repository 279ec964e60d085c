"""What is made ready for a champion before it serves: the labels asked for most, over restarts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from esci_tournament.deployments.scorer.file_cache import FileCache
from esci_tournament.deployments.scorer.labels import Labels
from esci_tournament.deployments.scorer.metrics import ScorerMetrics
from esci_tournament.deployments.scorer.preparation import Preparation
from esci_tournament.registry.settings import Settings
from tests.deployments.scorer.conftest import NAMES, Stand


@pytest.fixture
def labels(tmp_path: Path) -> Iterator[Labels]:
    made = Labels(FileCache(tmp_path / "cache", 4), ScorerMetrics())
    yield made
    made.close()


def prepared(labels: Labels, folder: Path, **settings: float) -> Preparation:
    return Preparation(Settings(home=folder, **settings), labels, folder / "serving")


def known(stand: Stand, labels: Labels, *ids: str) -> list[bool]:
    """Return which products have a label of the champion for the query."""
    champion = stand.champion
    versions = champion.catalogue.versions(champion.catalogue.find("us", ids))
    keys = labels.keys(champion.card.number, "us", "red lamp", ids, versions)
    return stand.run(labels.get(keys, labels_only=False))[0].tolist()


def test_what_is_asked_for_most_is_labelled_ahead_and_what_the_catalogue_lost_is_left_out(stand, labels, tmp_path):
    preparation = prepared(labels, tmp_path, warm_pairs=3)
    preparation.frequent.seen("us", "red lamp", ["P1", "gone", "P2", "P3"])
    preparation.frequent.seen("us", "red lamp", ["P1", "gone", "P2"])
    preparation.ready(stand.champion, stand.run, lambda: True)
    assert known(stand, labels, "P1", "P2", "P3") == [True, True, False]
    texts = stand.champion.catalogue.texts(stand.champion.catalogue.find("us", ["P1"]).tolist())
    scores = [stand.candidate(name)._one("red lamp", "us", texts[0].title) for name in NAMES]
    expected = stand.champion.subsets.best(NAMES)[0].predict_proba(np.array([scores]))
    champion = stand.champion
    keys = labels.keys(champion.card.number, "us", "red lamp", ["P1"], champion.catalogue.versions(np.array([1])))
    _, _, probabilities = stand.run(labels.get(keys, labels_only=False))
    np.testing.assert_allclose(probabilities, expected, atol=1e-4)


@pytest.mark.parametrize(("settings", "going_on"), [({"warm_pairs": 0}, True), ({"warm_s": 0}, True), ({}, False)])
def test_nothing_is_labelled_ahead_when_that_is_not_wanted(stand, labels, tmp_path, settings, going_on):
    preparation = prepared(labels, tmp_path, **settings)
    preparation.frequent.seen("us", "red lamp", ["P1"])
    preparation.ready(stand.champion, stand.run, lambda: going_on)
    assert stand.candidate("alpha/1").calls == []


def test_a_page_that_a_member_cannot_bear_refuses_no_champion(stand, labels, tmp_path):
    preparation = prepared(labels, tmp_path)
    preparation.frequent.seen("us", "red lamp", ["P1"])
    stand.candidate("beta/1").fails = True
    preparation.ready(stand.champion, stand.run, lambda: True)
    assert known(stand, labels, "P1") == [False]


def test_what_is_asked_for_outlives_a_restart_and_is_counted_by_product(labels, tmp_path):
    first = prepared(labels, tmp_path)
    first.remember(now=True)
    assert not (tmp_path / "serving").exists()  # nothing was asked for
    first.frequent.seen("us", "red lamp", ["P1", "P2"])
    first.frequent.seen("us", "lamp", ["P1"])
    first.remember()
    assert prepared(labels, tmp_path).retrieved() == {}  # it is kept once a minute
    first.remember(now=True)
    assert prepared(labels, tmp_path).retrieved() == {"P1": 2, "P2": 1}


def test_a_disk_that_keeps_nothing_stops_nobody(labels, tmp_path):
    (tmp_path / "serving").write_text("in the way", encoding="utf-8")
    preparation = prepared(labels, tmp_path)
    preparation.frequent.seen("us", "red lamp", ["P1"])
    preparation.remember(now=True)
    assert preparation.retrieved() == {"P1": 1}
