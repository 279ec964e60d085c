from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esci_tournament.deployments.scorer import cache as cache_module
from esci_tournament.deployments.scorer.cache import (
    EARLY,
    ENTRY,
    FileCache,
    entries_of,
    open_cache,
    pair_keys,
    probabilities_of,
)
from esci_tournament.deployments.scorer.table import HEADER_BYTES, SLOT_BYTES, Table
from esci_tournament.registry.errors import StoreError, UsageError
from esci_tournament.registry.settings import Settings


def some(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    keys = random.integers(0, 256, (count, 16), dtype=np.uint8)
    return keys, entries_of(random.dirichlet(np.ones(4), count), random.random(count) < 0.3)


# Keys


def test_a_key_follows_from_everything_that_a_label_follows_from() -> None:
    def key(version: int = 1, locale: str = "us", query: str = "red mug", product: str = "B0", text: int = 7) -> bytes:
        return pair_keys(version, locale, query, [product], np.array([text], np.uint64)).tobytes()

    others = [key(2), key(locale="es"), key(query="red mugs"), key(product="B1"), key(text=8), key(text=2**64 - 1)]
    assert len({key(), *others}) == 7
    assert key(query="  Red\tMUG ") == key()
    assert key() == pair_keys(1, "us", "red mug", ["B0"], [7]).tobytes()


def test_no_query_or_id_can_pass_for_another_by_its_separators() -> None:
    seen = {
        pair_keys(1, "us", query, [product], [7]).tobytes()
        for query, product in (("a", "b\x1f7\x1fc"), ("a\x1f7\x1fb", "c"), ("a", "b"), ("a\x1fb", ""), ("", "a\x1fb"))
    }
    assert len(seen) == 5


def test_strange_text_has_a_key_and_no_product_none() -> None:
    assert pair_keys(1, "jp", "\ud800 湯呑み", ["\udfff"], [0]).shape == (1, 16)
    assert pair_keys(1, "jp", "湯呑み", [], []).shape == (0, 16)
    with pytest.raises(ValueError, match="zip"):
        pair_keys(1, "us", "a", ["B0", "B1"], [1])


@given(st.lists(st.lists(st.floats(0.0001, 1), min_size=4, max_size=4), max_size=20))
def test_an_entry_gives_back_label_and_probabilities(rows: list[list[float]]) -> None:
    weights = np.array(rows).reshape(-1, 4)
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    entries = entries_of(probabilities)
    assert np.array_equal(entries["label"], probabilities.argmax(axis=1))
    assert np.abs(probabilities_of(entries) - probabilities).max(initial=0) <= 0.5 / 65535 + 1e-9


# The file


def test_what_was_put_is_found_and_nothing_else(tmp_path: Path) -> None:
    cache = FileCache(tmp_path, 4)
    keys, entries = some(1000)
    assert not cache.get(keys)[0].any()
    cache.put(keys, entries)
    found, got = cache.get(keys)
    assert found.all()
    assert np.array_equal(got, entries)
    strangers, _ = some(1000, seed=1)
    found, got = cache.get(strangers)
    assert not found.any()
    assert not got.view("u1").any()
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.entries) == (1000, 2000, 1000)
    assert cache.get(keys[:0])[0].shape == (0,)


def test_a_second_put_replaces_the_first(tmp_path: Path) -> None:
    cache = FileCache(tmp_path, 4)
    keys, entries = some(100)
    cache.put(keys, entries)
    _, others = some(100, seed=2)
    cache.put(keys, others)
    assert np.array_equal(cache.get(keys)[1], others)
    assert cache.stats().entries == 100


def test_it_survives_a_restart(tmp_path: Path) -> None:
    keys, entries = some(500)
    first = FileCache(tmp_path, 4)
    first.put(keys, entries)
    first.close()
    found, got = FileCache(tmp_path, 4).get(keys)
    assert found.all()
    assert np.array_equal(got, entries)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.integers(1, 12))
def test_whatever_happens_a_pair_has_its_own_entry_or_none(tmp_path_factory, seed: int, rounds: int) -> None:
    # A table of 40 buckets: most of what is put has to go
    random = np.random.default_rng(seed)
    table = Table.create(tmp_path_factory.mktemp("small") / "labels.bin", 40)
    truth: dict[bytes, bytes] = {}
    keys = random.integers(0, 2**64, (900, 2), dtype=np.uint64)
    for _ in range(rounds):
        chosen = random.permutation(900)[: random.integers(1, 400)]
        entries = random.integers(0, 2**16, (len(chosen), 5), dtype=np.uint16)
        table.put(keys[chosen], entries)
        truth.update({keys[row].tobytes(): one.tobytes() for row, one in zip(chosen, entries, strict=True)})
        got = np.zeros((900, 5), dtype=np.uint16)
        found, hits = table.get(keys, got)
        assert hits == found.sum() == table.used <= 320
        assert not got[~found].any()
        for row in np.flatnonzero(found):
            assert truth[keys[row].tobytes()] == got[row].tobytes()


def test_a_full_table_lets_go_what_was_not_used_for_longest(tmp_path: Path) -> None:
    table = Table.create(tmp_path / "labels.bin", 256)  # 2,048 slots
    random = np.random.default_rng(0)
    keys = random.integers(0, 2**64, (6000, 2), dtype=np.uint64)
    loved = keys[:300]

    def found(some: np.ndarray) -> float:
        return table.get(some, np.zeros((len(some), 5), np.uint16))[1] / len(some)

    for start in range(0, 6000, 100):
        table.put(keys[start : start + 100], np.ones((100, 5), np.uint16))
        found(loved)
    assert found(loved) > 0.95
    assert found(keys[300:3000]) < 0.1
    assert found(keys[-500:]) > 0.95
    assert table.evicted > 3000
    assert table.used / 2048 > 0.97


def test_it_grows_up_to_its_limit_and_stays_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_FIRST_BUCKETS", 512)
    cache = FileCache(tmp_path, 4)
    keys, entries = some(100_000)
    cache.put(keys[:60_000], entries[:60_000])
    assert cache.get(keys[:60_000])[0].mean() > 0.999
    assert 32 < cache.stats().bytes / cache.stats().entries < 64
    cache.put(keys[60_000:], entries[60_000:])
    cache.put(*some(200_000, seed=5))
    stats = cache.stats()
    assert stats.bytes == (tmp_path / "labels.bin").stat().st_size <= 4 * 2**20
    assert stats.bytes > 3.9 * 2**20
    assert stats.evicted > 100_000
    # A smaller limit holds from the next start on
    found = FileCache(tmp_path, 4.0).get(some(200_000, seed=5)[0])[0].sum()
    small = FileCache(tmp_path, 2.0)
    assert small.stats().bytes <= 2 * 2**20
    assert 0.4 * found < small.get(some(200_000, seed=5)[0])[0].sum() < found


@pytest.mark.parametrize("damage", ["cut", "header", "nothing", "noise", "another"])
def test_a_damaged_file_is_noticed_and_made_anew(tmp_path: Path, damage: str, caplog) -> None:
    keys, entries = some(5000)
    before = FileCache(tmp_path, 4)
    before.put(keys, entries)
    before.close()
    path = tmp_path / "labels.bin"
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2 + 5]
    elif damage == "header":
        content[8:16] = b"\xff" * 8
    elif damage == "nothing":
        content = bytearray()
    elif damage == "noise":
        content[HEADER_BYTES:] = np.random.default_rng(0).bytes(len(content) - HEADER_BYTES)
    else:
        content = bytearray(b"SQLite format 3\0" * 4096)
    os.unlink(path)
    path.write_bytes(content)
    cache = FileCache(tmp_path, 4)
    assert cache.stats().rebuilt == 1
    assert "made anew" in caplog.text
    assert not cache.get(keys)[0].any()
    cache.put(keys, entries)
    assert cache.get(keys)[0].all()
    assert FileCache(tmp_path, 4).stats().rebuilt == 0


def test_a_damaged_entry_is_not_found(tmp_path: Path) -> None:
    keys, entries = some(2000)
    before = FileCache(tmp_path, 4)
    before.put(keys, entries)
    before.close()
    slots = np.memmap(tmp_path / "labels.bin", dtype=np.uint8, mode="r+", offset=HEADER_BYTES).reshape(-1, SLOT_BYTES)
    filled = np.flatnonzero(slots[:, 28:].any(axis=1))[:8]
    slots[filled, [16, 20, 24, 25, 28, 31, 0, 15]] ^= 64
    slots.flush()
    cache = FileCache(tmp_path, 4)
    found, got = cache.get(keys)
    assert found.sum() == 1992
    assert np.array_equal(got[found], entries[found])
    cache.put(keys, entries)
    assert cache.get(keys)[0].all()


def _write_many(folder: Path, seed: int) -> None:
    cache = FileCache(folder, 8)
    for part in range(20):
        cache.put(*some(2000, seed=seed * 100 + part))
    cache.close()


def test_processes_share_a_file_while_it_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_FIRST_BUCKETS", 1024)  # children are forked
    context = multiprocessing.get_context("fork")
    mine = FileCache(tmp_path, 8)
    others = [context.Process(target=_write_many, args=(tmp_path, seed)) for seed in (1, 2)]
    for other in others:
        other.start()
    for part in range(20):
        keys, entries = some(2000, seed=300 + part)
        mine.put(keys, entries)
        found, got = mine.get(keys)
        assert np.array_equal(got[found], entries[found])
    for other in others:
        other.join(60)
        assert other.exitcode == 0
    total = wrong = 0
    for seed in (1, 2, 3):
        for part in range(20):
            keys, entries = some(2000, seed=seed * 100 + part)
            found, got = mine.get(keys)
            total += found.sum()
            wrong += (got[found] != entries[found]).sum()
    assert wrong == 0
    assert total > 60_000  # what is written into a table while it is copied may be lost


def test_no_room_on_the_disk_is_said_or_lived_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setattr(cache_module, "_FIRST_BUCKETS", 64)
    cache = FileCache(tmp_path, 4)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    keys, entries = some(3000)
    cache.put(keys, entries)  # it cannot grow, and goes on
    assert cache.stats().failures == 1
    assert "stays at" in caplog.text
    assert cache.get(keys)[0].sum() > 400
    with pytest.raises(StoreError, match="make room"):
        FileCache(tmp_path / "other", 4)
    assert not list((tmp_path / "other").glob(".labels*"))


def test_settings_name_the_place_and_the_limit(tmp_path: Path) -> None:
    cache = open_cache(Settings(home=tmp_path, cache_max_mib=8))
    assert not cache.remote
    assert (tmp_path / "cache" / "labels.bin").is_file()
    with pytest.raises(UsageError, match="set 4 or above"):
        FileCache(tmp_path, 0.001)


def test_an_early_exit_is_marked() -> None:
    entries = entries_of(np.eye(4), np.array([True, False, True, False]))
    assert (entries["flags"] & EARLY).tolist() == [1, 0, 1, 0]
    assert entries.dtype == ENTRY
    assert ENTRY.itemsize == 10
