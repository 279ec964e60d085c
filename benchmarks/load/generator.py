"""HTTP load with little overhead: prepared requests over open connections, as a closed or an open loop.

Closed loop: each client sends its next request when it has its answer; this measures capacity. Open loop: requests are
sent at fixed times, whatever happened to earlier ones, and waiting counts; this measures what a user sees at a rate.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from urllib.parse import urlsplit

import numpy as np

_IDLE_S = 2.0  # a connection unused for longer is opened anew: a server may be closing it


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


@dataclass(frozen=True)
class Answer:
    """What became of one request of a :func:`trace`.

    Attributes:
        due, came: when it was to leave and when its answer was there, seconds from the beginning.
        status: of HTTP, or the name of the error. body: of the answer.
    """

    due: float
    came: float
    status: str
    body: bytes

    @property
    def good(self) -> bool:
        return self.status == "200"


def request(address: str, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """Return a POST of JSON, with some more headers, as it goes over the wire."""
    host = urlsplit(address).netloc
    head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    return f"{head}{more}\r\n".encode() + body


def closed_loop(address: str, requests: list[bytes], clients: int, seconds: float) -> Load:
    """Let `clients` send requests, each one after the other, for `seconds`."""
    return _run(_closed(address, cycle(requests), clients, seconds))


def open_loop(address: str, requests: list[bytes], per_second: float, seconds: float, connections: int = 64) -> Load:
    """Send requests at random moments, `per_second` on average (a Poisson process), for `seconds`."""
    return _run(_open(address, cycle(requests), per_second, seconds, connections))


def arrivals(per_second: float, seconds: float, seed: int = 0) -> list[float]:
    """Return random moments within `seconds`, `per_second` on average (a Poisson process)."""
    gaps = np.random.default_rng(seed).exponential(1 / per_second, int(per_second * seconds * 1.2) + 10)
    moments = np.cumsum(gaps)
    return moments[moments < seconds].tolist()


def trace(
    address: str,
    requests: Iterable[bytes],
    moments: Sequence[float],
    connections: int = 64,
    patience_s: float = 30.0,
    tries: int = 1,
) -> list[Answer]:
    """Send one request at each moment, and return all that came of it, by the moment that each was due.

    Args:
        address: of the server.
        requests: as :func:`request` makes them.
        moments: seconds from the beginning, growing.
        connections: open at once.
        patience_s: seconds after which an answer is not waited for any more.
        tries: how often a request is sent that is not answered with 200; the time between counts.
    """
    return _run(_trace(address, requests, moments, connections, patience_s, tries))


def _run(work):
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

    begun = time.perf_counter()
    under_way: set[asyncio.Task[None]] = set()
    for moment in arrivals(per_second, seconds):
        due = begun + moment
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


async def _trace(
    address: str, requests: Iterable[bytes], moments: Sequence[float], connections: int, patience_s: float, tries: int
) -> list[Answer]:
    free: asyncio.Queue[_Connection] = asyncio.Queue()
    for _ in range(connections):
        free.put_nowait(_Connection(address))
    begun = time.perf_counter()

    async def one(content: bytes, due: float) -> Answer:
        await asyncio.sleep(max(begun + due - time.perf_counter(), 0))
        connection = await free.get()
        try:
            for number in range(tries):
                await asyncio.sleep(0.1 * number)
                status, body = await connection.exchange(content, patience_s)
                if status == "200":
                    break
        finally:
            free.put_nowait(connection)
        return Answer(due, time.perf_counter() - begun, status, body)

    answers = await asyncio.gather(*(one(*each) for each in zip(requests, moments, strict=False)))
    while not free.empty():
        free.get_nowait().close()
    return list(answers)


class _Connection:
    """A connection that is opened when needed and kept."""

    def __init__(self, address: str) -> None:
        self._host, self._port = urlsplit(address).hostname or "127.0.0.1", urlsplit(address).port or 80
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._used = 0.0

    async def ask(self, content: bytes, since: float, load: Load) -> None:
        """Send a request and count its answer, its time reckoned from `since`."""
        status, _ = await self.exchange(content)
        if status == "200":
            load.seconds.append(time.perf_counter() - since)
        else:
            load.failures[status] = load.failures.get(status, 0) + 1

    async def exchange(self, content: bytes, patience_s: float | None = None) -> tuple[str, bytes]:
        """Send a request, and return status and body of its answer, or the name of the error and nothing."""
        if time.perf_counter() - self._used > _IDLE_S:
            self.close()
        try:
            async with asyncio.timeout(patience_s):
                if self._streams is None:
                    self._streams = await asyncio.open_connection(self._host, self._port)
                reader, writer = self._streams
                writer.write(content)
                head = await reader.readuntil(b"\r\n\r\n")
                body = await _body(reader, head.lower())
        except (OSError, asyncio.IncompleteReadError) as error:
            self.close()
            return type(error).__name__, b""
        self._used = time.perf_counter()
        if b"connection: close" in head.lower():
            self.close()
        return head[9:12].decode(), body

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """Read the rest of an answer, whose head is in small letters."""
    for line in head.split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return await reader.readexactly(int(line.split(b":")[1]))
    if b"transfer-encoding: chunked" not in head:
        raise OSError("an answer without a length")
    parts = []
    while size := int(await reader.readline(), 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readline()
    return b"".join(parts)
