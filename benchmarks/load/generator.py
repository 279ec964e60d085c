"""HTTP load with little overhead: prepared requests over open connections, as a closed or an open loop.

Closed loop: each client sends its next request when it has its answer; this measures capacity. Open loop: requests are
sent at fixed times, whatever happened to earlier ones, and waiting counts; this measures what a user sees at a rate.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle
from urllib.parse import urlsplit

import numpy as np


@dataclass
class Load:
    """What came of it: seconds of each answer, in order of arrival; failures by status; length of the run, seconds."""

    seconds: list[float] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    elapsed: float = 0.0

    def milliseconds(self, percentile: float) -> float:
        return float(np.percentile(self.seconds, percentile)) * 1000 if self.seconds else float("nan")

    @property
    def per_second(self) -> float:
        return len(self.seconds) / self.elapsed if self.elapsed else 0.0

    @property
    def failed(self) -> int:
        return sum(self.failures.values())


def request(address: str, path: str, body: bytes) -> bytes:
    """Return a POST of JSON as it goes over the wire."""
    host = urlsplit(address).netloc
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def closed_loop(address: str, requests: list[bytes], clients: int, seconds: float) -> Load:
    """Let `clients` send requests, each one after the other, for `seconds`."""
    return _run(_closed(address, cycle(requests), clients, seconds))


def open_loop(address: str, requests: list[bytes], per_second: float, seconds: float, connections: int = 64) -> Load:
    """Send requests at random moments, `per_second` on average (a Poisson process), for `seconds`."""
    return _run(_open(address, cycle(requests), per_second, seconds, connections))


def _run(work) -> Load:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


async def _closed(address: str, requests: Iterator[bytes], clients: int, seconds: float) -> Load:
    load = Load()
    begun = time.perf_counter()

    async def client() -> None:
        connection = _Connection(address)
        while time.perf_counter() - begun < seconds:
            sent = time.perf_counter()
            await connection.ask(next(requests), sent, load)
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    load.elapsed = time.perf_counter() - begun
    return load


async def _open(address: str, requests: Iterator[bytes], per_second: float, seconds: float, connections: int) -> Load:
    load = Load()
    free: asyncio.Queue[_Connection] = asyncio.Queue()
    for _ in range(connections):
        free.put_nowait(_Connection(address))

    async def one(content: bytes, due: float) -> None:
        connection = await free.get()
        try:
            await connection.ask(content, due, load)
        finally:
            free.put_nowait(connection)

    gaps = np.random.default_rng(0).exponential(1 / per_second, int(per_second * seconds * 1.2) + 10)
    begun = due = time.perf_counter()
    under_way: set[asyncio.Task[None]] = set()
    for gap in gaps:
        due += float(gap)
        if due - begun > seconds:
            break
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        task = asyncio.create_task(one(next(requests), due))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    if under_way:
        await asyncio.wait(under_way)
    load.elapsed = time.perf_counter() - begun
    while not free.empty():
        free.get_nowait().close()
    return load


class _Connection:
    """A connection that is opened when needed and kept."""

    def __init__(self, address: str) -> None:
        self._host, self._port = urlsplit(address).hostname or "127.0.0.1", urlsplit(address).port or 80
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, content: bytes, since: float, load: Load) -> None:
        """Send a request and count its answer, its time reckoned from `since`."""
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(self._host, self._port)
            reader, writer = self._streams
            writer.write(content)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(_length(head))
        except (OSError, asyncio.IncompleteReadError) as error:
            self.close()
            name = type(error).__name__
        else:
            name = head[9:12].decode()
        if name == "200":
            load.seconds.append(time.perf_counter() - since)
        else:
            load.failures[name] = load.failures.get(name, 0) + 1

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.split(b":")[1])
    raise OSError("an answer without a length")
