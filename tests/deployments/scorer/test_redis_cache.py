"""The Redis cache, with a real Redis server on a free port that stops and restarts."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from esci_tournament.deployments.scorer.cache import entries_of
from esci_tournament.deployments.scorer.chosen_cache import open_cache
from esci_tournament.deployments.scorer.redis_cache import RedisCache
from esci_tournament.registry.errors import UsageError
from esci_tournament.registry.settings import Settings

SERVER = shutil.which("redis-server")


class Server:
    """A Redis server that a test may stop and start again."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder, self.process = folder, None

    def start(self) -> None:
        command = [SERVER, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError("redis-server did not start")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    if SERVER is None:
        pytest.skip("redis-server is not installed")
    one = Server(tmp_path)
    one.start()
    yield one
    one.stop()


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def some(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    keys, probabilities = random.integers(0, 256, (count, 16), dtype=np.uint8), random.dirichlet(np.ones(4), count)
    return keys, entries_of(probabilities, probabilities.argmax(axis=1))


def test_what_one_scorer_put_another_finds(server: Server, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, cache_redis_url=server.url, cache_redis_timeout_ms=2000)
    first, second = open_cache(settings), open_cache(settings)
    assert first.remote
    keys, entries = some(1000)
    first.put(keys[:600], entries[:600])
    found, got = second.get(keys)
    assert found.tolist() == [True] * 600 + [False] * 400
    assert np.array_equal(got[:600], entries[:600])
    assert not got[600:].view("u1").any()
    assert (second.stats().hits, second.stats().misses) == (600, 400)
    assert not second.get(keys[:0])[0].size


def test_entries_go_after_their_time_and_foreign_values_are_not_taken(server: Server) -> None:
    cache = RedisCache(server.url, 2.0, 86_400)
    keys, entries = some(3)
    cache.put(keys, entries)
    names = cache._client.keys()
    assert len(names) == 3
    assert all(86_000 < cache._client.ttl(name) <= 86_400 for name in names)
    cache._client.set(names[0], b"something else")
    assert cache.get(keys)[0].sum() == 2


def test_redis_goes_and_comes_back_and_no_look_up_fails(server: Server) -> None:
    clock = Clock()
    cache = RedisCache(server.url, 1.0, 3600, now=clock)
    keys, entries = some(40)
    cache.put(keys, entries)
    server.stop()
    assert not cache.get(keys)[0].any()
    assert not cache.stats().available
    started = time.perf_counter()
    for _ in range(100):  # Redis is left alone meanwhile
        cache.get(keys)
        cache.put(keys, entries)
    assert time.perf_counter() - started < 4.9, "100 waits of 50 ms"
    failures = cache.stats().failures
    for _ in range(12):
        clock.time += 100
        assert not cache.get(keys)[0].any()
    assert cache.stats().failures == failures + 12
    clock.time += 14
    assert not cache.stats().available  # the pause has grown to 15 s
    server.start()
    clock.time += 2
    assert cache.stats().available
    cache.put(keys, entries)
    assert cache.get(keys)[0].all()
    assert cache.stats().available


def test_a_restarted_server_is_met_with_open_connections(server: Server) -> None:
    cache = RedisCache(server.url, 1.0, 3600)
    keys, entries = some(10)
    cache.put(keys, entries)
    server.stop()
    server.start()
    cache.put(keys, entries)
    assert cache.get(keys)[0].all()
    assert cache.stats().failures == 0


def test_a_server_that_hangs_is_waited_for_no_longer_than_allowed() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        cache = RedisCache(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", 0.05, 3600)
        started = time.perf_counter()
        assert not cache.get(some(5)[0])[0].any()
        assert time.perf_counter() - started < 10
        assert not cache.stats().available


def test_a_wrong_address_is_refused_without_its_password() -> None:
    with pytest.raises(UsageError, match="cache_redis_url") as caught:
        RedisCache("rediss//user:secret@host", 0.05, 3600)
    assert "secret" not in str(caught.value)
