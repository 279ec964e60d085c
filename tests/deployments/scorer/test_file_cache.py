"""The file cache: stored labels are found, up to the limit, also after damage and killed processes."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esci_tournament.deployments.scorer import file_cache
from esci_tournament.deployments.scorer.cache import (
    ENTRY,
    entries_of,
)
from esci_tournament.deployments.scorer.chosen_cache import open_cache
from esci_tournament.deployments.scorer.file_cache import FileCache
from esci_tournament.registry.errors import UsageError
from esci_tournament.registry.settings import Settings


def some(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    keys = random.integers(0, 256, (count, 16), dtype=np.uint8)
    labels = random.integers(0, 4, count)
    return keys, entries_of(random.dirichlet(np.ones(4), count), labels, random.random(count) < 0.3)


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


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.integers(1, 12))
def test_whatever_happens_a_pair_has_its_own_entry_or_none(tmp_path_factory, seed: int, rounds: int) -> None:
    random = np.random.default_rng(seed)
    cache = FileCache(tmp_path_factory.mktemp("small"), 1)
    cache._store.limit_to(20 * 4096)  # tables of 8 pages: most of what is put has to go
    truth: dict[bytes, bytes] = {}
    keys = random.integers(0, 256, (4000, 16), dtype=np.uint8)
    for _ in range(rounds):
        chosen = random.permutation(4000)[: random.integers(1, 2000)]
        entries = np.frombuffer(random.bytes(len(chosen) * ENTRY.itemsize), dtype=ENTRY)
        cache.put(keys[chosen], entries)
        truth.update({keys[row].tobytes(): one.tobytes() for row, one in zip(chosen, entries, strict=True)})
        before = cache.stats()
        found, got = cache.get(keys)
        assert cache.stats().hits - before.hits == found.sum() <= before.entries <= 2500
        assert not got[~found].view("u1").any()
        for row in np.flatnonzero(found):
            assert truth[keys[row].tobytes()] == got[row].tobytes()
    cache.close()


def test_at_the_limit_what_was_not_used_for_longest_goes(tmp_path: Path) -> None:
    cache = FileCache(tmp_path, 1)
    keys, entries = some(60_000)
    loved = keys[:300]

    def found(some: np.ndarray) -> float:
        return cache.get(some)[0].mean()

    cache.put(loved, entries[:300])
    for start in range(300, 60_000, 100):
        cache.put(keys[start : start + 100], entries[start : start + 100])
        assert found(loved) == 1  # though put but once
    assert found(keys[300:30_000]) < 0.1
    assert found(keys[-4000:]) == 1
    assert cache.stats().evicted > 45_000


def test_it_grows_up_to_its_limit_and_stays_there(tmp_path: Path) -> None:
    cache = FileCache(tmp_path, 4)
    assert cache.stats().bytes < 2**16
    keys, entries = some(100_000)
    cache.put(keys[:10_000], entries[:10_000])
    assert cache.get(keys[:10_000])[0].all()
    assert 32 < cache.stats().bytes / cache.stats().entries < 128
    cache.put(keys[10_000:], entries[10_000:])
    cache.put(*some(200_000, seed=5))
    stats = cache.stats()
    assert stats.bytes == (tmp_path / "labels.lmdb").stat().st_size <= 4 * 2**20
    assert stats.bytes > 3 * 2**20
    assert stats.evicted > 100_000
    cache.close()
    # A smaller limit holds from the next start on
    cache = FileCache(tmp_path, 4.0)
    found = cache.get(some(200_000, seed=5)[0])[0].sum()
    cache.close()
    small = FileCache(tmp_path, 2.0)
    assert small.stats().bytes <= 2 * 2**20
    assert 0.3 * found < small.get(some(200_000, seed=5)[0])[0].sum() < found
    assert small.get(some(200_000, seed=5)[0][-2000:])[0].all()
    small.put(*some(50_000, seed=6))
    assert (tmp_path / "labels.lmdb").stat().st_size <= 2 * 2**20
    assert not list(tmp_path.glob("*.next*"))
    small.close()
    # And a larger one
    large = FileCache(tmp_path, 8.0)
    large.put(keys, entries)
    assert 4 * 2**20 < large.stats().bytes <= 8 * 2**20
    assert large.stats().rebuilt == 0


@pytest.mark.parametrize("damage", ["cut", "header", "nothing", "noise", "zeros", "another", "the machine went down"])
def test_a_damaged_file_is_noticed_and_made_anew(tmp_path: Path, damage: str, caplog, monkeypatch) -> None:
    keys, entries = some(5000)
    before = FileCache(tmp_path, 4)
    before.put(keys, entries)
    if damage == "the machine went down":
        content = bytearray((tmp_path / "labels.lmdb").read_bytes())
    before.close()
    path = tmp_path / "labels.lmdb"
    if damage != "the machine went down":
        content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2 + 5]
    elif damage == "header":
        content[16:24] = content[4112:4120] = b"\xff" * 8
    elif damage == "nothing":
        content = bytearray()
    elif damage == "noise":
        content[8192:] = np.random.default_rng(0).bytes(len(content) - 8192)
    elif damage == "zeros":
        content[8192:] = bytes(len(content) - 8192)
    elif damage == "another":
        content = bytearray(b"SQLite format 3\0" * 4096)
    else:
        monkeypatch.setattr(file_cache, "_BOOT", b"the next one")
    os.unlink(path)
    path.write_bytes(content)
    cache = FileCache(tmp_path, 4)
    assert cache.stats().rebuilt == 1
    assert "made anew" in caplog.text
    assert not cache.get(keys)[0].any()
    cache.put(keys, entries)
    assert cache.get(keys)[0].all()
    cache.close()
    again = FileCache(tmp_path, 4)
    assert again.stats().rebuilt == 0
    assert again.get(keys)[0].all()


def test_a_file_that_was_closed_survives_a_restart_of_the_machine(tmp_path: Path, monkeypatch) -> None:
    keys, entries = some(5000)
    before = FileCache(tmp_path, 4)
    before.put(keys, entries)
    before.close()
    monkeypatch.setattr(file_cache, "_BOOT", b"the next one")
    assert FileCache(tmp_path, 4).get(keys)[0].all()


def test_damage_that_is_met_while_it_is_used_costs_the_labels_and_no_page(tmp_path: Path, caplog) -> None:
    keys, entries = some(20_000)
    cache = FileCache(tmp_path, 4)
    cache.put(keys, entries)
    with (tmp_path / "labels.lmdb").open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(8192)
        file.write(bytes(size - 8192))
    assert not cache.get(keys)[0].any()
    assert "made anew" in caplog.text
    cache.put(keys, entries)
    assert cache.get(keys)[0].all()
    assert cache.stats().rebuilt == 1


def test_a_file_of_the_old_form_is_not_read_and_its_room_is_given_back(tmp_path: Path) -> None:
    (tmp_path / "labels.bin").write_bytes(b"\x1a" * 16_384)
    cache = FileCache(tmp_path, 4)
    assert cache.stats().entries == cache.stats().rebuilt == 0
    assert not (tmp_path / "labels.bin").exists()


def test_a_damaged_entry_is_not_found(tmp_path: Path) -> None:
    keys, entries = some(2000)
    before = FileCache(tmp_path, 4)
    before.put(keys, entries)
    before.close()
    path = tmp_path / "labels.lmdb"
    content = bytearray(path.read_bytes())
    for number, place in enumerate((16, 17, 18, 21, 25, 26, 29, 8)):  # bytes of label, flags, probabilities, check, key
        name = keys[100 * number].tobytes() + entries[100 * number].tobytes()
        start = content.find(name)
        assert start > 0
        while start > 0:  # copies in pages that are free now too
            content[start + place] ^= 64
            start = content.find(name, start + 1)
    path.write_bytes(content)
    cache = FileCache(tmp_path, 4)
    found, got = cache.get(keys)
    assert found.sum() == 1992
    assert np.array_equal(got[found], entries[found])
    cache.put(keys, entries)
    assert cache.get(keys)[0].all()


def _write_many(folder: Path, seed: int, mib: float) -> None:
    cache = FileCache(folder, mib)
    for part in range(20):
        cache.put(*some(2000, seed=seed * 100 + part))
        cache.get(some(2000, seed=seed * 100 + part)[0])
    cache.close()


@pytest.mark.parametrize("mib", [16, 2])
def test_processes_share_a_file_while_it_grows(tmp_path: Path, mib: float) -> None:
    context = multiprocessing.get_context("spawn")
    mine = FileCache(tmp_path, mib)
    others = [context.Process(target=_write_many, args=(tmp_path, seed, mib)) for seed in (1, 2)]
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
    assert total == 120_000 if mib == 16 else total > 8000
    assert mine.stats().bytes <= mib * 2**20
    assert mine.stats().failures == mine.stats().rebuilt == 0


_WRITER = """
import sys
from pathlib import Path
import numpy as np
from esci_tournament.deployments.scorer.file_cache import FileCache, ENTRY
cache, random = FileCache(Path(sys.argv[1]), 2), np.random.default_rng(int(sys.argv[2]))
while True:
    keys = np.frombuffer(random.bytes(16 * 200), np.uint8).reshape(200, 16)
    cache.put(keys, np.ascontiguousarray(keys[:, :10]).view(ENTRY).reshape(-1))
    cache.get(keys)
    print(keys.tobytes().hex(), flush=True)
"""


def test_killed_while_it_writes_it_has_what_was_written_and_nothing_wrong(tmp_path: Path) -> None:
    mine = FileCache(tmp_path, 2)  # open all the time, as another scorer's would be
    for seed in range(8):
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path), str(seed)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        for _ in range(30 + 7 * seed):
            said = writer.stdout.readline()
        writer.kill()
        writer.wait()
        keys = np.frombuffer(bytes.fromhex(said.decode()), np.uint8).reshape(-1, 16)
        found, got = mine.get(keys)
        assert found.all()
        assert np.array_equal(got, np.ascontiguousarray(keys[:, :10]).view(ENTRY).reshape(-1))
        mine.put(*some(3000, seed=seed))
    stats = mine.stats()
    assert (stats.failures, stats.rebuilt) == (0, 0)
    assert stats.bytes <= 2 * 2**20
    mine.close()
    assert FileCache(tmp_path, 2).stats().rebuilt == 0


_FULL_DISK = """
import logging, resource, sys
from pathlib import Path
import numpy as np
from esci_tournament.deployments.scorer.file_cache import FileCache, ENTRY
from esci_tournament.registry.errors import StoreError
logging.basicConfig()
cache = FileCache(Path(sys.argv[1], "home"), 4)
keys = np.random.default_rng(0).integers(0, 256, (30_000, 16), dtype=np.uint8)
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
for start in range(0, 30_000, 100):
    cache.put(keys[start : start + 100], np.ones(100, ENTRY))
print(cache.stats().failures, cache.get(keys[-400:])[0].sum(), cache.get(keys)[0].sum())
cache.close()
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 2**20))
try:
    FileCache(Path(sys.argv[1], "other"), 4)
except StoreError as error:
    print(error)
"""


def test_no_room_on_the_disk_is_said_or_lived_with(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=60)
    failures, last, kept = map(int, done.stdout.split("\n")[0].split())
    assert 1 <= failures < 10  # it cannot grow, and goes on
    assert last == 400
    assert kept > 2000
    assert "stays at 1 MiB" in done.stderr
    assert "make room" in done.stdout


def test_threads_may_read_and_write_at_once(tmp_path: Path) -> None:
    cache = FileCache(tmp_path, 1)
    keys, entries = some(20_000)

    def work(part: int) -> int:
        wrong = 0
        for start in range(part * 5000, (part + 1) * 5000, 50):
            cache.put(keys[start : start + 50], entries[start : start + 50])
            found, got = cache.get(keys[:: 50 + part])
            wrong += (got[found] != entries[:: 50 + part][found]).sum()
        return wrong

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, range(4))) == 0
    assert cache.stats().failures == cache.stats().rebuilt == 0


def test_settings_name_the_place_and_the_limit(tmp_path: Path) -> None:
    cache = open_cache(Settings(home=tmp_path, cache_max_mib=8))
    assert not cache.remote
    assert (tmp_path / "cache" / "labels.lmdb").is_file()
    with pytest.raises(UsageError, match="set 4 or above"):
        FileCache(tmp_path, 0.001)


def test_after_it_was_closed_nothing_is_found_and_nothing_kept(tmp_path: Path) -> None:
    cache = FileCache(tmp_path, 8)
    keys, entries = some(50)
    cache.put(keys, entries)
    cache.close()
    cache.put(*some(50, seed=1))
    found, _ = cache.get(keys)
    assert not found.any()
    again = FileCache(tmp_path, 8)
    assert again.get(keys)[0].all()
    assert again.stats().entries == 50
    again.close()
