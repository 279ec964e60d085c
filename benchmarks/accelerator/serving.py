"""Replicas on a card: pages a second, memory, a start beside load, a kill."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accelerator.card import settled_mib, used_mib
from benchmarks.accelerator.costs import OnCard
from benchmarks.accelerator.ground import SERVED, Ground, some_pairs
from benchmarks.harness import Figure, figure, say
from esci_tournament.deployments.scorer.catalogue import TEXTS, Text
from esci_tournament.deployments.scorer.compute.forked import ProcessFleet, Zygote
from esci_tournament.deployments.scorer.compute.loading import Job
from esci_tournament.deployments.scorer.compute.pairs import Pairs
from esci_tournament.deployments.scorer.compute.replica import Answer
from esci_tournament.tasks.candidates.profile import PAGE
from esci_tournament.tasks.ensemble.ensemble import MANIFEST

IN_FLIGHT = 8
_LEFT_MIB = 64.0  # that the driver may keep when a process has ended


@dataclass
class Load:
    """What came of pages: seconds in all, milliseconds of each, and pages with a member that did not answer."""

    seconds: float = 0.0
    milliseconds: list[float] = field(default_factory=list)
    failed: int = 0

    @property
    def per_second(self) -> float:
        return len(self.milliseconds) / self.seconds

    def at(self, percentile: float) -> float:
        return float(np.percentile(self.milliseconds, percentile))


def measure(ground: Ground, costs: dict[str, OnCard]) -> list[Figure]:
    """Return all figures of replicas.

    Args:
        ground: data and models.
        costs: of the members, as :mod:`benchmarks.accelerator.costs` measured them.
    """
    ensemble = write_ensemble(ground)
    pages = pages_of(ground, ground.size.pages)
    figures, zygote = [*in_series(ground, pages)], Zygote()
    try:
        for replicas, slots in ((1, 1), (1, None), (2, None), (4, None)):
            figures += _told(asyncio.run(one_setup(ground, zygote, ensemble, pages, replicas, slots, costs)))
        return figures + _told(asyncio.run(disturbed(ground, zygote, ensemble, pages)))
    finally:
        zygote.close()


def _told(figures: list[Figure]) -> list[Figure]:
    """Report figures as soon as they are there: what follows may fail."""
    for one in figures:
        say(f"  {one.name}: {one.value:.4g} {one.unit}")
    return figures


def write_ensemble(ground: Ground) -> Path:
    """Write an ensemble of the served models, without an aggregator, which replicas do not read."""
    folder = ground.folder / "ensemble"
    entries = [{"id": name, "folder": f"members/{number}"} for number, name in enumerate(SERVED)]
    for entry in entries:
        shutil.copytree(ground.folder / "models" / entry["id"], folder / entry["folder"])
    (folder / MANIFEST).write_text(json.dumps({"members": entries}), encoding="utf-8")
    return folder


def pages_of(ground: Ground, count: int) -> list[Pairs]:
    """Return pages of 40 products of one query each."""
    products, pairs = ground.frame("products"), some_pairs(ground, count)
    rows = np.random.default_rng(ground.seed).integers(len(products), size=(count, PAGE))
    columns = [products["product_id"].tolist(), *(products[name].fillna("").tolist() for name in TEXTS)]
    pages = []
    for query, locale, chosen in zip(pairs["query"], pairs["locale"].astype(str), rows, strict=True):
        pages.append(Pairs(query, locale, [Text(*(column[row] for column in columns)) for row in chosen]))
    return pages


def in_series(ground: Ground, pages: Sequence[Pairs]) -> Iterator[Figure]:
    """Yield the speed of the members in this process, one after the other."""
    members = [ground.model(name, ground.device) for name in SERVED]
    few = pages[: max(len(pages) // 4, 1)]
    for page in few[:3]:
        for member in members:
            member.predict_proba(*page.frames)
    began = time.perf_counter()
    for page in few:
        for member in members:
            member.predict_proba(*page.frames)
    yield figure("members one after the other in one process", len(few) / (time.perf_counter() - began), "pages/s")


async def one_setup(
    ground: Ground,
    zygote: Zygote,
    ensemble: Path,
    pages: Sequence[Pairs],
    replicas: int,
    slots: int | None,
    costs: dict[str, OnCard],
) -> list[Figure]:
    """Measure replicas that share the card."""
    before = used_mib()
    async with manned(ground, zygote, ensemble, replicas, slots) as fleet:
        living, starts = [], []
        for _ in range(replicas):
            began = time.monotonic()
            living.append(await fleet.replica(on_end))
            starts.append(time.monotonic() - began)
        await ask(living, pages[: 4 * IN_FLIGHT])
        load = await ask(living, pages)
        used = used_mib() - before
        for replica in living:
            replica.end()
    at_once = slots or len(SERVED)
    name = f"{replicas} replica{'s' * (replicas > 1)} of {at_once} at once"
    figures = [
        figure(f"{name}: speed", load.per_second, "pages/s"),
        figure(f"{name}: page, p50, {IN_FLIGHT} under way", load.at(50), "ms"),
        figure(f"{name}: page, p95, {IN_FLIGHT} under way", load.at(95), "ms"),
        figure(f"{name}: pages without an answer", load.failed, "pages", "<= 0"),
        figure(f"{name}: start of a replica", max(starts), "s"),
    ]
    if ground.on_card:
        context = max(costs[member].context_mib for member in SERVED)
        each = sum(costs[member].cost.memory_mib_thousand or 0.0 for member in SERVED)
        expected = replicas * (context + each)
        words = f"{name}: memory that the driver counts over context and members' costs"
        figures.append(figure(f"{name}: memory on the card", used, "MiB", "", "context and costs", expected))
        figures.append(figure(words, used / expected, "times", "<= 1.2"))
        left, seconds = settled_mib(before + _LEFT_MIB)
        figures.append(figure(f"{name}: memory left {seconds:.1f} s after their end", left - before, "MiB",
                              f"<= {_LEFT_MIB}"))  # fmt: skip
    return figures


async def disturbed(ground: Ground, zygote: Zygote, ensemble: Path, pages: Sequence[Pairs]) -> list[Figure]:
    """Start a replica beside one that is under load, and kill the other one."""
    before = used_mib()
    async with manned(ground, zygote, ensemble, 2, None) as fleet:
        gone = asyncio.Event()
        first = await fleet.replica(lambda replica, why: gone.set())
        alone = used_mib()
        under_way = asyncio.create_task(ask([first], [*pages, *pages]))
        await asyncio.sleep(0.2)
        began = time.monotonic()
        second = await fleet.replica(on_end)
        beside = time.monotonic() - began
        load = await under_way
        both = await ask([second], pages[:IN_FLIGHT])
        os.kill(first.pid, signal.SIGKILL)  # type: ignore[attr-defined]
        await asyncio.wait_for(gone.wait(), 30)
        left, seconds = settled_mib(alone + _LEFT_MIB)
        began = time.monotonic()
        third = await fleet.replica(on_end)
        again = time.monotonic() - began
        after = await ask([third], pages[:IN_FLIGHT])
        for replica in (second, third):
            replica.end()
    figures = [
        figure("a replica starts beside one under load", beside, "s"),
        figure("pages that were lost by it", load.failed + both.failed, "pages", "<= 0"),
        figure("a replica starts after another one was killed", again, "s"),
        figure("pages that it did not answer", after.failed, "pages", "<= 0"),
    ]
    if ground.on_card:
        figures.append(figure(f"killed replica: memory left after {seconds:.1f} s", left - alone, "MiB",
                              f"<= {_LEFT_MIB}"))  # fmt: skip
        rest, _ = settled_mib(before + _LEFT_MIB)
        figures.append(figure("memory left when all have ended", rest - before, "MiB", f"<= {_LEFT_MIB}"))
    return figures


async def ask(replicas: Sequence[Any], pages: Sequence[Pairs]) -> Load:
    """Have pages scored by all members, each page in one replica, `IN_FLIGHT` at once in all."""
    load, waiting = Load(), list(enumerate(pages))[::-1]
    began = time.perf_counter()

    async def client() -> None:
        while waiting:
            number, page = waiting.pop()
            sent, replica = time.perf_counter(), replicas[number % len(replicas)]
            answers = await asyncio.wait_for(asyncio.gather(*(_one(replica, member, page) for member in SERVED)), 60)
            load.milliseconds.append(1000 * (time.perf_counter() - sent))
            load.failed += not all(isinstance(answer, np.ndarray) for answer in answers)

    await asyncio.gather(*(client() for _ in range(IN_FLIGHT)))
    load.seconds = time.perf_counter() - began
    return load


async def _one(replica: Any, member: str, page: Pairs) -> Answer:
    answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def done(answers: list[Answer], seconds: float) -> None:
        if not answer.done():
            answer.set_result(answers[0])

    replica.send(member, [(page, 0, len(page))], done)
    return await answer


@asynccontextmanager
async def manned(
    ground: Ground, zygote: Zygote, ensemble: Path, replicas: int, slots: int | None
) -> AsyncIterator[ProcessFleet]:
    """Keep the members of an ensemble ready for replicas while the block runs."""
    job = Job(ensemble, ground.device, slots, 1, 512, None, "", ground.folder / "vectors")
    fleet = ProcessFleet(zygote, job, replicas)
    try:
        await asyncio.to_thread(fleet.start)
        yield fleet
    finally:
        fleet.close()


def on_end(replica: Any, why: str) -> None:
    """Say that a replica ended without having been told to."""
    say(f"a replica ended: {why}")
