"""The label cache: look-ups a second in this process, and bytes a pair on disk, at 50 M pairs.

The store is the one that the scorer uses. Beside it, in the same run and with the same entries, stands LMDB (the
library `lmdb`), which was the other choice, at a smaller number of pairs: it would take longer than the rest. Look-ups
are in batches of 40, a page, and of 1,000, half of them found; the store has no more of the file in memory than
the operating system leaves it.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.harness import Figure, arguments, figure, report, say
from esci_tournament.deployments.scorer.cache import ENTRY, FileCache, pair_keys

PAIRS, PEER_PAIRS = 50_000_000, 2_000_000
QUICK_PAIRS, QUICK_PEER_PAIRS = 1_000_000, 200_000
_BATCH = 500_000
_KEPT = 2_000_000  # keys that are looked up, from all over the store
_SECONDS = 4.0
_PATIENCE_S = 200.0  # a machine that is busy with other things fills the store with as many as it can in this time


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and return 0 when every target is met, else 1."""
    options = arguments("cache", __doc__, argv)
    pairs, peers = (QUICK_PAIRS, QUICK_PEER_PAIRS) if options.quick else (PAIRS, PEER_PAIRS)
    figures = []
    with tempfile.TemporaryDirectory(prefix="cache-") as name:
        peer = _lmdb(Path(name) / "lmdb", peers, options.seed)
        figures += _ours(Path(name) / "ours", pairs, options.seed, peer)
    keys_us = _microseconds_of_keys()
    figures.append(figure("keys of a page of 40", keys_us, "us"))
    report("cache", figures, options.json)
    return 0 if all(each.met is not False for each in figures) else 1


def _ours(folder: Path, pairs: int, seed: int, peer: dict[str, float]) -> list[Figure]:
    cache = FileCache(folder, 1e9)
    cache.put(*_some(np.random.default_rng(0), 1000))  # compiles
    cache.get(_some(np.random.default_rng(0), 1000)[0])
    random, wanted, start = np.random.default_rng(seed), [], time.perf_counter()
    spent = 0.0
    for number in range(-(-pairs // _BATCH)):
        if time.perf_counter() - start > _PATIENCE_S:
            break
        keys, entries = _some(random, _BATCH)
        wanted.append(keys[: max(_KEPT * _BATCH // pairs, 1)])
        begun = time.perf_counter()
        cache.put(keys, entries)
        spent += time.perf_counter() - begun
        if number % 10 == 0:
            say(f"{cache.stats().entries:,} pairs after {time.perf_counter() - start:.0f} s")
    stats, filled = cache.stats(), len(wanted) * _BATCH
    known = np.concatenate(wanted)
    kept = cache.get(known)[0].mean()
    asked = _half_unknown(known, seed)
    rates = {size: _rate(lambda keys: cache.get(keys), asked, size) for size in (40, 1000)}
    processor = _rate(lambda keys: cache.get(keys), asked, 40, time.process_time)
    one = asked[:40]
    cache.close()
    again = time.perf_counter()
    reopened = FileCache(folder, 1e9)
    assert reopened.get(one)[0].any()
    opened = time.perf_counter() - again
    name = f"LMDB, {int(peer.get('pairs', 0)):,} pairs" if peer else ""
    return [
        figure("pairs put", filled, "pairs", f">= {pairs}"),
        figure("kept of what was put", kept, "share"),
        figure("bytes a pair on disk", stats.bytes / stats.entries, "bytes", "<= 64", name, peer.get("bytes")),
        figure("look-ups, batches of 1,000", rates[1000], "pairs/s", ">= 1000000", name, peer.get("1000")),
        figure("look-ups, batches of 40", rates[40], "pairs/s", ">= 1000000", name, peer.get("40")),
        figure("look-ups, batches of 40, by processor time", processor, "pairs/s"),
        figure("puts", filled / spent, "pairs/s", "", name, peer.get("puts")),
        figure("opened and first page looked up", 1000 * opened, "ms"),
    ]


def _lmdb(folder: Path, pairs: int, seed: int) -> dict[str, float]:
    if importlib.util.find_spec("lmdb") is None:
        say("lmdb is not installed: no peer")
        return {}
    import lmdb

    folder.mkdir()
    place = lmdb.open(str(folder), map_size=1 << 36, sync=False, metasync=False, readahead=False)
    random, wanted, spent = np.random.default_rng(seed), [], 0.0
    for _ in range(-(-pairs // _BATCH)):
        keys, entries = _some(random, min(_BATCH, pairs))
        wanted.append(keys)
        names, content = _pieces(keys), _pieces(entries.view(np.uint8).reshape(len(entries), -1))
        begun = time.perf_counter()
        with place.begin(write=True) as transaction:
            transaction.cursor().putmulti(zip(names, content, strict=True))
        spent += time.perf_counter() - begun
    place.sync()

    def get(keys: np.ndarray) -> list[bytes | None]:
        with place.begin() as transaction:
            return [transaction.get(key) for key in _pieces(keys)]

    asked = _half_unknown(np.concatenate(wanted), seed)
    rates = {str(size): _rate(get, asked, size) for size in (40, 1000)}
    count, size = place.stat()["entries"], (folder / "data.mdb").stat().st_size
    place.close()
    return rates | {"pairs": count, "bytes": size / count, "puts": pairs / spent}


def _some(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    keys = np.frombuffer(random.bytes(16 * count), dtype=np.uint8).reshape(count, 16)
    entries = np.frombuffer(random.bytes(ENTRY.itemsize * count), dtype=ENTRY)
    return keys, entries


def _pieces(rows: np.ndarray) -> list[bytes]:
    content, size = np.ascontiguousarray(rows).tobytes(), rows.shape[1]
    return [content[start : start + size] for start in range(0, len(content), size)]


def _half_unknown(keys: np.ndarray, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed + 1)
    others = np.frombuffer(random.bytes(keys.size), dtype=np.uint8).reshape(keys.shape)
    return random.permutation(np.concatenate([keys, others]))


def _rate(
    get: Callable[[np.ndarray], object],
    asked: np.ndarray,
    size: int,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Return look-ups a second; by processor time it does not matter what else the machine does."""
    done, start = 0, clock()
    for first in range(0, len(asked) - size + 1, size):
        get(asked[first : first + size])
        done += size
        if clock() - start > _SECONDS:
            break
    return done / (clock() - start)


def _microseconds_of_keys() -> float:
    ids, versions, times = [f"B0{number:08d}" for number in range(40)], np.arange(40, dtype=np.uint64), []
    for number in range(500):
        start = time.perf_counter()
        pair_keys(number, "us", "a red mug for my desk", ids, versions)
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e6


if __name__ == "__main__":
    sys.exit(main())
