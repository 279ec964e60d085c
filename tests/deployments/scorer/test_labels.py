"""Labels of pairs seen before, as the service asks for them: behind a real cache, without one, with a broken one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esci_tournament.deployments.scorer.file_cache import FileCache
from esci_tournament.deployments.scorer.labels import Labels
from esci_tournament.deployments.scorer.metrics import ScorerMetrics

PROBABILITIES = np.array([[0.7, 0.1, 0.1, 0.1], [0.2, 0.3, 0.4, 0.1]], dtype=np.float32)
DECIDED = np.array([0, 1])  # of the second pair not the most probable class
VERSIONS = np.array([7, 8], dtype=np.uint64)


@pytest.fixture
def labels(tmp_path: Path) -> Iterator[Labels]:
    made = Labels(FileCache(tmp_path, 4), ScorerMetrics())
    yield made
    made.close()


def found(labels: Labels, keys: np.ndarray, labels_only: bool) -> tuple[list[bool], np.ndarray, np.ndarray]:
    hit, label, probabilities = asyncio.run(labels.get(keys, labels_only))
    return hit.tolist(), label, probabilities


def test_what_was_put_is_found_with_the_probabilities_that_were_told_the_first_time(labels: Labels) -> None:
    keys = labels.keys(1, "us", "red lamp", ["P1", "P2"], VERSIONS)
    assert found(labels, keys, False)[0] == [False, False]
    labels.put(keys, PROBABILITIES, DECIDED)
    labels.flush()
    hit, label, probabilities = found(labels, keys, False)
    assert (hit, label.tolist()) == ([True, True], [0, 1])
    np.testing.assert_array_equal(probabilities, labels.rounded(PROBABILITIES))


def test_an_early_exit_is_found_by_its_label_alone(labels: Labels) -> None:
    keys = labels.keys(1, "us", "red lamp", ["P1", "P2"], VERSIONS)
    labels.put(keys, PROBABILITIES, DECIDED, np.array([True, False]))
    labels.flush()
    assert found(labels, keys, labels_only=True)[0] == [True, True]
    assert found(labels, keys, labels_only=False)[0] == [False, True]


def test_what_waits_is_written_before_the_end(tmp_path: Path) -> None:
    first = Labels(FileCache(tmp_path, 4), ScorerMetrics())
    keys = first.keys(1, "us", "red lamp", ["P1", "P2"], VERSIONS)
    for row in range(2):
        first.put(keys[[row]], PROBABILITIES[[row]], DECIDED[[row]])
    first.close()
    again = Labels(FileCache(tmp_path, 4), ScorerMetrics())
    assert found(again, keys, False)[0] == [True, True]
    again.close()


def test_without_a_cache_nothing_is_kept_and_nothing_is_missed() -> None:
    labels = Labels(None, ScorerMetrics())
    keys = labels.keys(1, "us", "red lamp", ["P1", "P2"], VERSIONS)
    labels.put(keys, PROBABILITIES, DECIDED)
    labels.flush()
    assert found(labels, keys, True)[0] == [False, False]
    labels.close()


class Broken(FileCache):
    """A cache whose disk is gone."""

    def get(self, keys: np.ndarray) -> Any:
        raise OSError("gone")

    def put(self, keys: np.ndarray, entries: np.ndarray) -> None:
        raise OSError("gone")


@pytest.mark.parametrize("remote", [False, True])
def test_a_cache_that_fails_is_counted_and_costs_nobody_an_answer(tmp_path: Path, remote: bool) -> None:
    metrics, cache = ScorerMetrics(), Broken(tmp_path, 4)
    cache.remote = remote
    labels = Labels(cache, metrics)
    keys = labels.keys(1, "us", "red lamp", ["P1", "P2"], VERSIONS)
    labels.put(keys, PROBABILITIES, DECIDED)
    labels.flush()
    assert found(labels, keys, True)[0] == [False, False]
    assert "scorer_labels_lost_total 2.0" in metrics.text().decode()
    labels.close()


@given(st.lists(st.tuples(*[st.floats(0, 1)] * 4), max_size=10))
def test_rounding_twice_is_rounding_once(rows: list[tuple[float, ...]]) -> None:
    labels = Labels(None, ScorerMetrics())
    once = labels.rounded(np.array(rows).reshape(-1, 4))
    np.testing.assert_array_equal(labels.rounded(once), once)
