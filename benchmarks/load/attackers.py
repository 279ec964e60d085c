"""Clients that try to keep a scorer from answering others: `python -m benchmarks.load.attackers URL SECONDS NAME...`.

They run in one process of low priority, so that what is measured is what the scorer does about them, and not that they
take the processor from it. Their keys, one for each attack, are read from the variable ATTACKER_KEYS, a JSON object. A
JSON document on standard output says how often each of them tried, and what came of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

SCATTERED = "slow bodies from 1,000 addresses"
_PAUSE_S = 0.02  # after a failure, so that a server that refuses is not asked by nothing but this process


@dataclass
class Target:
    """What is attacked.

    Attributes:
        host, port: of the scorer.
        keys: attack -> the API key that it uses.
        until: when the attack ends, seconds of `time.monotonic`.
        queries: that a well-behaved client asks, and product ids of its pages.
        outcomes: attack -> what came of it -> how often.
    """

    host: str
    port: int
    keys: dict[str, str]
    until: float
    queries: list[tuple[str, list[str]]] = field(default_factory=list)
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.until

    async def open(self, own: str | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect, from an address of this machine or from any."""
        return await asyncio.open_connection(self.host, self.port, local_addr=None if own is None else (own, 0))

    def post(self, size: int, key: str) -> bytes:
        """Return the header of a page of `size` bytes."""
        more = f"x-api-key: {key}\r\n"
        head = f"POST /v1/score HTTP/1.1\r\nhost: {self.host}\r\ncontent-type: application/json\r\n{more}"
        return f"{head}content-length: {size}\r\n\r\n".encode()


async def unfinished_headers(target: Target) -> str:
    """Send a header byte by byte, without an end and without a key."""
    reader, writer = await target.open()
    writer.write(b"GET /healthz HTTP/1.1\r\nx: ")
    return await _trickle(target, reader, writer)


async def slow_bodies(target: Target) -> str:
    """Send the body of a page byte by byte."""
    reader, writer = await target.open()
    writer.write(target.post(100_000, target.keys["slow bodies"]))
    return await _trickle(target, reader, writer)


async def scattered_bodies(target: Target) -> str:
    """Send the body of a page byte by byte, from one of a thousand addresses, with a key that has no rate."""
    reader, writer = await target.open(f"127.1.{random.randrange(4)}.{random.randrange(1, 251)}")
    writer.write(target.post(100_000, target.keys[SCATTERED]))
    return await _trickle(target, reader, writer)


async def _trickle(target: Target, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    begun = time.monotonic()
    try:
        while not target.over and not reader.at_eof():
            writer.write(b"a")
            await writer.drain()
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    head = await reader.readuntil(b"\r\n")
                    return head[9:12].decode()
        return "kept" if time.monotonic() - begun > 20 else "closed"
    finally:
        writer.close()


async def huge_headers(target: Target) -> str:
    """Send a header of 64 MiB."""
    reader, writer = await target.open()
    try:
        writer.write(b"GET /healthz HTTP/1.1\r\nx: ")
        for _ in range(256):
            writer.write(b"a" * 2**18)
            await writer.drain()
        return "taken"
    finally:
        with suppress(asyncio.IncompleteReadError, OSError, TimeoutError):
            async with asyncio.timeout(1.0):
                head = await reader.readuntil(b"\r\n")
                writer.close()
                return head[9:12].decode()  # noqa: B012  the answer says more than the broken connection
        writer.close()


async def huge_pages(target: Target) -> str:
    """Send a page of one product of 7 MiB, with a key."""
    product = {"title": "Velo red lamp", "description": f"desk lamp {random.random()} " * 240_000}
    return await _ask(target, "huge pages", {"query": "lamp", "products": [product], "deadline_ms": 50})


async def hostile_json(target: Target) -> str:
    """Send a body that is expensive to read, with a key."""
    head = b'{"query": "lamp", "locale": "us", "products": [{"id": "B1"'
    names = b",".join(b'"%x": 1' % number for number in range(400_000))
    body = random.choice([b"[" * 4_000_000, head + b"}], " + names + b"}", head + b"," + names + b"}]}", head * 60_000])
    return await _exchange(target, target.post(len(body), target.keys["hostile JSON"]) + body)


async def wrong_keys(target: Target) -> str:
    """Ask with a key that has the right form, and half of the time the id of a good one."""
    id = random.choice([target.keys["wrong keys"].split("_")[1], f"{random.getrandbits(48):012x}"])
    key = f"esci_{id}_{random.getrandbits(200):043x}"[:61]
    return await _exchange(target, target.post(2, key) + b"{}")


async def spellings(target: Target) -> str:
    """Ask what others ask, in other spellings, so as to be first, with a key."""
    query, ids = random.choice(target.queries)
    wide = "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in query)
    other = random.choice([wide, query.upper(), f"  {query} ", query.replace(" ", "\u3000"), query.title()])
    return await _ask(target, "spellings", {"query": other, "products": [{"id": one} for one in ids]})


async def churn(target: Target) -> str:
    """Open a connection and close it, with nothing, half a request or a whole one sent."""
    _, writer = await target.open()
    writer.write(
        random.choice([b"", b"GET /hea", b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n" * 40, b"\x16\x03\x01"])
    )
    if random.random() < 0.5:
        writer.transport.abort()
    writer.close()
    await asyncio.sleep(0.002)
    return "closed"


async def _ask(target: Target, name: str, page: dict[str, object]) -> str:
    body = json.dumps({"locale": "us", **page}).encode()
    return await _exchange(target, target.post(len(body), target.keys[name]) + body)


async def _exchange(target: Target, content: bytes) -> str:
    reader, writer = await target.open()
    try:
        async with asyncio.timeout(10.0):
            writer.write(content)
            await writer.drain()
            head = await reader.readuntil(b"\r\n")
            return head[9:12].decode()
    finally:
        writer.close()


# Name -> what is done, and by how many clients at once
ATTACKS: dict[str, tuple[Callable[[Target], Awaitable[str]], int]] = {
    "unfinished headers": (unfinished_headers, 1100),
    "slow bodies": (slow_bodies, 1100),
    SCATTERED: (scattered_bodies, 1100),
    "huge headers": (huge_headers, 4),
    "huge pages": (huge_pages, 4),
    "hostile JSON": (hostile_json, 4),
    "wrong keys": (wrong_keys, 16),
    "spellings": (spellings, 2),
    "churn": (churn, 8),
}


async def attack(target: Target, names: list[str], share: float = 1.0) -> None:
    """Let all clients of some attacks go on until the target's time is over."""

    async def client(name: str, once: Callable[[Target], Awaitable[str]], number: int) -> None:
        outcomes = target.outcomes.setdefault(name, Counter())
        await asyncio.sleep(number * 0.001)
        while not target.over:
            try:
                came = await once(target)
            except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
                came = type(error).__name__
            outcomes[came] += 1
            if came not in ("200", "closed"):
                await asyncio.sleep(_PAUSE_S)

    clients = [
        asyncio.create_task(client(name, ATTACKS[name][0], number))
        for name in names
        for number in range(max(round(ATTACKS[name][1] * share), 1))
    ]
    _, late = await asyncio.wait(clients, timeout=max(target.until - time.monotonic(), 0) + 12)
    for one in late:
        one.cancel()


def main(argv: list[str]) -> int:
    """Attack, and print what came of it."""
    address, seconds, share, *names = argv
    os.nice(10)
    parts = urlsplit(address)
    queries = json.loads(sys.stdin.readline())
    until = time.monotonic() + float(seconds)
    target = Target(parts.hostname or "", parts.port or 80, json.loads(os.environ["ATTACKER_KEYS"]), until, queries)
    asyncio.run(attack(target, names, float(share)))
    print(json.dumps({name: dict(outcomes) for name, outcomes in target.outcomes.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
