"""The label cache: a million labels in the store that the scorer uses, and in alternatives.

Each store runs in its own process. Look-ups are pages of 40 keys in one call, half of them found, alone and while a
thread of the same process puts 100 pages a second. Times are processor time, so other work on the machine matters
little. SQLite comes with Python; the others need `pip install rocksdict diskcache apsw plyvel-ci` and are skipped if
they are not installed. No store waits for the disk. Behaviour at the size limit and with damaged files is measured for
the scorer's cache only.
"""

from __future__ import annotations

import importlib.util
import logging
import multiprocessing
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil

from benchmarks.harness import Figure, arguments, figure, report, say
from esci_tournament.deployments.scorer.cache import ENTRY, KEY_BYTES, pair_keys
from esci_tournament.deployments.scorer.file_cache import FILE, FileCache

PAIRS, QUICK_PAIRS = 1_000_000, 100_000
PAGE, WRITTEN_A_SECOND = 40, 100
_SECONDS, _FILL_S = 3.0, 60.0
_LIMIT_MIB = 16.0


class Store(Protocol):
    """What is measured; opened in an empty folder."""

    def put(self, keys: np.ndarray, entries: np.ndarray) -> object: ...
    def get(self, keys: np.ndarray) -> object: ...


class Ours(FileCache):
    """The scorer's."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, 4096)


class Sqlite:
    """A table without row ids in WAL mode; a connection for those who read and one for those who write."""

    def __init__(self, folder: Path) -> None:
        self._reader, self._writer = self._connect(folder / "labels.db"), self._connect(folder / "labels.db")
        self._writer.execute("create table labels (name blob primary key, entry blob) without rowid")

    def _connect(self, path: Path) -> Any:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode = wal", "synchronous = off", f"mmap_size = {2**31 - 65_536}"):
            connection.execute(f"pragma {pragma}")
        return connection

    def put(self, keys: np.ndarray, entries: np.ndarray) -> None:
        self._writer.execute("begin")
        rows = zip(_pieces(keys), _pieces(entries), strict=True)
        self._writer.executemany("insert or replace into labels values (?, ?)", rows)
        self._writer.execute("commit")

    def get(self, keys: np.ndarray) -> dict[bytes, bytes]:
        asked = ",".join("?" * len(keys))
        return dict(self._reader.execute(f"select * from labels where name in ({asked})", _pieces(keys)))


class Apsw(Sqlite):
    """The same through another binding."""

    def _connect(self, path: Path) -> Any:
        import apsw

        connection = apsw.Connection(str(path)).cursor()
        for pragma in ("journal_mode = wal", "synchronous = off", f"mmap_size = {2**31 - 65_536}"):
            connection.execute(f"pragma {pragma}")
        return connection


class RocksDB:
    """By rocksdict."""

    def __init__(self, folder: Path) -> None:
        import rocksdict

        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        self._batch, self._store = rocksdict.WriteBatch, rocksdict.Rdict(str(folder / "rocks"), options)

    def put(self, keys: np.ndarray, entries: np.ndarray) -> None:
        batch = self._batch(raw_mode=True)
        for name, entry in zip(_pieces(keys), _pieces(entries), strict=True):
            batch.put(name, entry)
        self._store.write(batch)

    def get(self, keys: np.ndarray) -> object:
        return self._store[_pieces(keys)]


class LevelDB:
    """By plyvel."""

    def __init__(self, folder: Path) -> None:
        import plyvel

        options = {"bloom_filter_bits": 10, "lru_cache_size": 2**26}
        self._store = plyvel.DB(str(folder / "level"), create_if_missing=True, **options)

    def put(self, keys: np.ndarray, entries: np.ndarray) -> None:
        with self._store.write_batch() as batch:
            for name, entry in zip(_pieces(keys), _pieces(entries), strict=True):
                batch.put(name, entry)

    def get(self, keys: np.ndarray) -> list[bytes | None]:
        return [self._store.get(name) for name in _pieces(keys)]


class DiskCache:
    """SQLite with an eviction policy."""

    def __init__(self, folder: Path) -> None:
        import diskcache

        settings = {"size_limit": 2**32, "eviction_policy": "least-recently-stored", "sqlite_synchronous": 0}
        self._store = diskcache.Cache(str(folder / "disk"), **settings)

    def put(self, keys: np.ndarray, entries: np.ndarray) -> None:
        with self._store.transact():
            for name, entry in zip(_pieces(keys), _pieces(entries), strict=True):
                self._store.set(name, entry)

    def get(self, keys: np.ndarray) -> list[bytes | None]:
        return [self._store.get(name) for name in _pieces(keys)]


# name -> class, and the module that it needs
STORES: dict[str, tuple[Callable[[Path], Store], str]] = {
    "label cache (LMDB)": (Ours, "lmdb"),
    "SQLite": (Sqlite, "sqlite3"),
    "SQLite by apsw": (Apsw, "apsw"),
    "RocksDB by rocksdict": (RocksDB, "rocksdict"),
    "LevelDB by plyvel": (LevelDB, "plyvel"),
    "diskcache": (DiskCache, "diskcache"),
}


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and return 0 when every target is met, else 1."""
    options = arguments("cache", __doc__, argv)
    pairs = QUICK_PAIRS if options.quick else PAIRS
    figures: list[Figure] = []
    for name, (_, module) in STORES.items():
        if importlib.util.find_spec(module) is None:
            say(f"{name}: {module} is not installed")
            continue
        say(name)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            figures += pool.apply(measure, (name, pairs, options.seed))
    figures += at_the_limit(options.seed)
    figures += damaged(options.seed, 2 if options.quick else 10)
    figures.append(figure("keys of a page of 40", _microseconds_of_keys(), "us"))
    report("cache", figures, options.json)
    return 0 if all(each.met is not False for each in figures) else 1


def measure(name: str, pairs: int, seed: int) -> list[Figure]:
    """Return the figures of one store, in this process."""
    random, process = np.random.default_rng(seed), psutil.Process()
    with tempfile.TemporaryDirectory(prefix="cache-") as folder:
        before = process.memory_info().rss
        store = STORES[name][0](Path(folder))
        known, puts = _fill(store, pairs, random)
        pages = _half_unknown(known, random)
        alone = _read(store, pages)
        with _Writing(store, random):
            beside = _read(store, pages)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        memory = (process.memory_info().rss - before) / 2**20
        filled = len(known) * 10
        ours = name == next(iter(STORES))
        return [
            figure(f"{name}: look-ups", 1e6 * PAGE / alone.mean(), "pairs/s", ">= 92000" if ours else ""),
            figure(f"{name}: a page, mean", alone.mean(), "us"),
            figure(f"{name}: a page, p99", np.percentile(alone, 99), "us"),
            figure(f"{name}: a page beside writes, mean", beside.mean(), "us"),
            figure(f"{name}: a page beside writes, p99", np.percentile(beside, 99), "us"),
            figure(f"{name}: puts", puts, "pairs/s"),
            figure(f"{name}: {filled:,} pairs on disk", size / filled, "bytes/pair", "<= 128" if ours else ""),
            figure(f"{name}: memory, mapped pages included", memory, "MiB"),
        ]


def at_the_limit(seed: int) -> list[Figure]:
    """Return what the scorer's cache keeps of many labels, a hundredth of which is asked for all the time."""
    random = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(prefix="cache-") as folder:
        cache = FileCache(Path(folder), _LIMIT_MIB)
        asked, entries = _some(random, 4000)
        cache.put(asked, entries)
        for _ in range(400):
            cache.put(*_some(random, 1000))
            cache.get(asked)
        stats, found = cache.stats(), cache.get(asked)[0].mean()
        name = f"at a limit of {_LIMIT_MIB:g} MiB"
        return [
            figure(f"{name}: file", stats.bytes / 2**20, "MiB", f"<= {_LIMIT_MIB:g}"),
            figure(f"{name}: labels kept of {404_000:,}", stats.entries, "pairs"),
            figure(f"{name}: kept of what is asked for", found, "share", ">= 0.99"),
        ]


def damaged(seed: int, files: int) -> list[Figure]:
    """Return, for each kind of damage, how many of some damaged files ended the process that used them.

    Raises:
        RuntimeError: if a damaged file gives a wrong label.
    """
    random, figures = np.random.default_rng(seed), []
    with tempfile.TemporaryDirectory(prefix="cache-") as name:
        whole = Path(name) / "whole"
        cache = FileCache(whole, 64)
        keys, entries = _some(random, 40_000)
        cache.put(keys, entries)
        cache.close()
        content = np.fromfile(whole / FILE, dtype=np.uint8).reshape(-1, 4096)
        for kind, damage in _DAMAGES.items():
            ended = 0
            for number in range(files):
                folder = Path(name) / f"{kind}-{number}"
                folder.mkdir()
                damage(content.copy(), random).tofile(folder / FILE)
                child = multiprocessing.get_context("spawn").Process(target=_use, args=(folder, keys, entries))
                child.start()
                child.join()
                if child.exitcode == 1:
                    raise RuntimeError(f"{kind}: a wrong label")
                ended += child.exitcode != 0
            figures.append(figure(f"{files} files with {kind}: processes that end", ended, "processes"))
    return figures


def _in_pages(change: Callable[[np.ndarray, np.random.Generator], None]) -> Damage:
    """Return a damage of 40 pages."""

    def damage(pages: np.ndarray, random: np.random.Generator) -> np.ndarray:
        for number in random.choice(np.arange(2, len(pages)), 40, replace=False):
            change(pages[number], random)
        return pages

    return damage


def _flip(page: np.ndarray, random: np.random.Generator) -> None:
    page[random.integers(0, 4096, 20)] ^= np.uint8(1) << random.integers(0, 8, 20, dtype=np.uint8)


def _make_noise(page: np.ndarray, random: np.random.Generator, start: int = 0) -> None:
    page[start:] = random.integers(0, 256, 4096 - start, dtype=np.uint8)


def _make_head_noise(pages: np.ndarray, random: np.random.Generator) -> np.ndarray:
    pages[:2] = random.integers(0, 256, (2, 4096), dtype=np.uint8)
    return pages


Damage = Callable[[np.ndarray, np.random.Generator], np.ndarray]
_DAMAGES: dict[str, Damage] = {
    "an end missing": lambda pages, random: pages.reshape(-1)[: random.integers(0, pages.size)],
    "noise for a head": lambda pages, random: np.concatenate(
        [random.integers(0, 256, 8192, dtype=np.uint8), pages[2:].flat]
    ),
    "zeros in pages": _in_pages(lambda page, random: page.fill(0)),
    "flipped bits in pages": _in_pages(_flip),
    "noise in pages": _in_pages(_make_noise),
    "noise in pages, but for their heads": _in_pages(lambda page, random: _make_noise(page, random, 16)),
}


def _use(folder: Path, keys: np.ndarray, entries: np.ndarray) -> None:
    """Read and write as a scorer does; end with 1 if a label is wrong."""
    logging.disable()
    cache = FileCache(folder, 64)
    for start in range(0, len(keys), PAGE):
        found, got = cache.get(keys[start : start + PAGE])
        if (got[found] != entries[start : start + PAGE][found]).any():
            sys.exit(1)
    cache.put(keys[::7], entries[::7])
    cache.close()


def _fill(store: Store, pairs: int, random: np.random.Generator) -> tuple[np.ndarray, float]:
    """Put pairs, 1,000 at a time; return a tenth of the keys, and puts a second of processor time."""
    known, spent, start = [], 0.0, time.perf_counter()
    for _ in range(pairs // 1000):
        keys, entries = _some(random, 1000)
        known.append(keys[:100])
        begun = time.process_time()
        store.put(keys, entries)
        spent += time.process_time() - begun
        if time.perf_counter() - start > _FILL_S:
            break
    return np.concatenate(known), 1000 * len(known) / spent


def _read(store: Store, pages: list[np.ndarray]) -> np.ndarray:
    """Return the processor time of each of many pages in this thread, us."""
    times, start = [], time.perf_counter()
    while time.perf_counter() - start < _SECONDS:
        begun = time.thread_time()
        store.get(pages[len(times) % len(pages)])
        times.append(time.thread_time() - begun)
    return 1e6 * np.asarray(times)


class _Writing:
    """Puts pages from a thread for the time of the block."""

    def __init__(self, store: Store, random: np.random.Generator) -> None:
        self._store, self._random, self._end = store, random, threading.Event()
        self._thread = threading.Thread(target=self._write)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _write(self) -> None:
        while not self._end.wait(1 / WRITTEN_A_SECOND):
            self._store.put(*_some(self._random, PAGE))


def _some(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    keys = np.frombuffer(random.bytes(KEY_BYTES * count), dtype=np.uint8).reshape(count, KEY_BYTES)
    return keys, np.frombuffer(random.bytes(ENTRY.itemsize * count), dtype=ENTRY)


def _half_unknown(keys: np.ndarray, random: np.random.Generator) -> list[np.ndarray]:
    asked = random.permutation(np.concatenate([keys, _some(random, len(keys))[0]]))
    return [asked[start : start + PAGE] for start in range(0, len(asked) - PAGE + 1, PAGE)]


def _pieces(rows: np.ndarray) -> list[bytes]:
    content, size = rows.tobytes(), rows.nbytes // len(rows)
    return [content[start : start + size] for start in range(0, len(content), size)]


def _microseconds_of_keys() -> float:
    ids, versions, times = [f"B0{number:08d}" for number in range(PAGE)], np.arange(PAGE, dtype=np.uint64), []
    for number in range(500):
        start = time.perf_counter()
        pair_keys(number, "us", "a red mug for my desk", ids, versions)
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e6


if __name__ == "__main__":
    sys.exit(main())
