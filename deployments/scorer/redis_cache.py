"""The label cache in Redis, for several scorers; while Redis is away, requests are answered without it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from esci_tournament.deployments.scorer.cache import ENTRY, KEY_BYTES, CacheStats
from esci_tournament.registry.errors import UsageError

_log = logging.getLogger("scorer")
_PREFIX = b"esci:label:2:"  # the number is the version of the entries' format
_SHORTEST_S, _LONGEST_S = 0.25, 15.0  # pause after a failure, doubled with each


class RedisCache:
    """A label cache in Redis. When Redis does not answer in time, nothing is found and nothing is kept.

    After a failure Redis is not asked for 0.25 s, after each further failure for twice as long, up to 15 s; then one
    request at a time tries it again. Size and eviction are Redis's own (`maxmemory`, `maxmemory-policy allkeys-lru`).

    Args:
        url: address, such as redis://:password@host:6379/0.
        timeout_s: seconds to wait for a connection and for an answer.
        keep_s: seconds after which Redis drops an entry that was not put again.
        now: returns the time in seconds, growing.

    Raises:
        UsageError: if the address is malformed.
    """

    remote = True

    def __init__(self, url: str, timeout_s: float, keep_s: float, now: Callable[[], float] = time.monotonic) -> None:
        try:
            self._client = redis.Redis.from_url(
                url,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                retry=Retry(NoBackoff(), 1),  # a connection that Redis closed when it was restarted is opened again
            )
        except ValueError as error:
            raise UsageError(
                f"setting cache_redis_url is not an address of Redis ({str(error).replace(url, 'it')}); "
                "write redis://host:port/number"
            ) from None  # the address may hold a password
        self._keep_s, self._now = int(keep_s), now
        self._lock = threading.Lock()
        self._hits = self._misses = self._failures = 0
        self._closed_until, self._pause = 0.0, _SHORTEST_S

    def get(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Look up pairs in one request to Redis, as described at `LabelCache.get`."""
        found, entries = np.zeros(len(keys), dtype=np.bool_), np.zeros(len(keys), dtype=ENTRY)
        if len(keys) and self._may_try():
            names = _names(keys)
            values: list[bytes | None] = self._tried(lambda: self._client.mget(names)) or []
            for row, value in enumerate(values):
                if value is not None and len(value) == ENTRY.itemsize:
                    entries[row], found[row] = np.frombuffer(value, dtype=ENTRY)[0], True
        with self._lock:
            self._hits += int(found.sum())
            self._misses += int(len(keys) - found.sum())
        return found, entries

    def put(self, keys: np.ndarray, entries: np.ndarray) -> None:
        """Write entries in one request to Redis, as described at `LabelCache.put`."""
        if not len(keys) or not self._may_try():
            return
        names, content, size = _names(keys), np.ascontiguousarray(entries).tobytes(), ENTRY.itemsize

        def write() -> bool:
            with self._client.pipeline(transaction=False) as pipeline:
                for row, name in enumerate(names):
                    pipeline.set(name, content[row * size : (row + 1) * size], ex=self._keep_s)
                pipeline.execute()
            return True

        self._tried(write)

    def stats(self) -> CacheStats:
        """Return the figures of this process; number and size of the entries are unknown."""
        available = self._now() >= self._closed_until
        return CacheStats(self._hits, self._misses, failures=self._failures, available=available)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _may_try(self) -> bool:
        with self._lock:
            if self._now() < self._closed_until:
                return False
            if self._pause > _SHORTEST_S:
                # Redis failed last time: until this request has an answer, others do not ask it
                self._closed_until = self._now() + self._pause
            return True

    def _tried(self, work: Callable[[], Any]) -> Any:
        """Return the result of `work`, or None when Redis fails; a pause begins then."""
        try:
            answer = work()
        except (RedisError, OSError) as error:
            with self._lock:
                if self._pause == _SHORTEST_S:
                    _log.warning("Redis does not answer (%s); the scorer continues without cached labels", error)
                self._failures += 1
                self._closed_until = self._now() + self._pause
                self._pause = min(2 * self._pause, _LONGEST_S)
            return None
        with self._lock:
            if self._pause > _SHORTEST_S:
                _log.warning("Redis answers again")
            self._closed_until, self._pause = 0.0, _SHORTEST_S
        return answer


def _names(keys: np.ndarray) -> list[bytes]:
    content = np.ascontiguousarray(keys).tobytes()
    return [_PREFIX + content[start : start + KEY_BYTES] for start in range(0, len(content), KEY_BYTES)]
