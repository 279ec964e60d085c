from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esci_tournament.deployments.scorer.cache import pair_keys, probabilities_of
from esci_tournament.deployments.scorer.file_cache import FileCache
from esci_tournament.deployments.scorer.warm import Frequent, fill


@given(st.lists(st.integers(0, 40), max_size=400), st.integers(1, 10))
def test_frequent_pairs_are_kept_and_counts_are_bounded(stream: list[int], capacity: int) -> None:
    counter, truth = Frequent(capacity), Counter(stream)
    for product in stream:
        counter.seen("us", "mug", [str(product)])
    kept = {int(pair[2]): count for pair, count in counter.most(10**6)}
    assert len(counter) <= 2 * capacity
    assert counter.total == len(stream)
    assert counter.lost <= len(stream) / capacity
    for product, count in truth.items():
        assert count - counter.lost <= kept.get(product, 0) <= count
        if count > len(stream) / capacity:
            assert product in kept


def test_the_most_frequent_come_first_and_by_query() -> None:
    counter = Frequent(100)
    for _ in range(3):
        counter.seen("us", "red mug", ["a", "b"])
    counter.seen("us", "red mug", ["a"])
    counter.seen("jp", "red mug", ["c"] * 2)
    assert counter.most(2) == [(("us", "red mug", "a"), 4), (("us", "red mug", "b"), 3)]
    assert list(counter.pages(10)) == [("us", "red mug", ["a", "b"]), ("jp", "red mug", ["c"])]
    assert list(counter.pages(10, size=1))[:2] == [("us", "red mug", ["a"]), ("us", "red mug", ["b"])]
    counter.fade()
    assert counter.most(10) == [(("us", "red mug", "a"), 2), (("jp", "red mug", "c"), 1), (("us", "red mug", "b"), 1)]


def test_endless_text_takes_no_memory() -> None:
    counter = Frequent(10)
    counter.seen("us", "x" * 10_000, ["a"])
    counter.seen("us", "x", ["a" * 10_000])
    assert len(counter) == 0


def test_counts_survive_a_restart_and_damage_costs_only_them(tmp_path: Path) -> None:
    counter = Frequent(5)
    for number in range(9):
        counter.seen("es", "taza", [f"p{other}" for other in range(number)])
    path = tmp_path / "frequent.json"
    counter.save(path)
    again = Frequent.load(path, 5)
    assert (again.most(9), again.total, again.lost) == (counter.most(9), counter.total, counter.lost)
    assert len(Frequent.load(path, 2)) <= 4
    for damage in ("", "{}", '{"form": 1, "pairs": [[1]], "total": 0, "lost": 0}', "[]"):
        path.write_text(damage, encoding="utf-8")
        assert len(Frequent.load(path, 5)) == 0
    assert len(Frequent.load(tmp_path / "absent", 5)) == 0


def test_only_what_is_missing_and_known_is_scored(tmp_path: Path) -> None:
    cache, asked = FileCache(tmp_path, 4), []

    def versions(locale: str, ids: list[str]) -> tuple[list[str], np.ndarray]:
        known = [one for one in ids if one != "gone"]
        return known, np.arange(len(known), dtype=np.uint64)

    def score(locale: str, query: str, ids: list[str]) -> tuple[np.ndarray, np.ndarray]:
        asked.append((locale, query, list(ids)))
        return np.tile(np.array([0.1, 0.6, 0.2, 0.1], dtype=np.float32), (len(ids), 1)), np.full(len(ids), 2)

    pages = [("us", "mug", ["a", "gone", "b"]), ("us", "lamp", ["gone"])]
    assert fill(cache, pages, 7, versions, score) == 2
    assert asked == [("us", "mug", ["a", "b"])]
    found, entries = cache.get(pair_keys(7, "us", "mug", ["a", "b"], [0, 1]))
    assert found.all()
    assert entries["label"].tolist() == [2, 2]  # as it was decided, not as it is most probable
    assert probabilities_of(entries) == pytest.approx(np.tile([0.1, 0.6, 0.2, 0.1], (2, 1)), abs=1e-5)
    assert fill(cache, [*pages, ("us", "mug", ["a", "b", "c"])], 7, versions, score) == 1
    assert asked[1:] == [("us", "mug", ["c"])]
    assert fill(cache, pages, 8, versions, score, going_on=lambda: False) == 0
