"""Replicas that are processes: what they answer, and what becomes of a page when they are killed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from esci_tournament.deployments.scorer.catalogue import ProductCatalogue, Text
from esci_tournament.deployments.scorer.champion import Card, ServingChampion
from esci_tournament.deployments.scorer.compute.dispatcher import PendingRequests, ServingContext
from esci_tournament.deployments.scorer.compute.fleet import Fleets
from esci_tournament.deployments.scorer.compute.forked import ProcessReplica
from esci_tournament.deployments.scorer.compute.pairs import NotAnswered, Pairs
from esci_tournament.deployments.scorer.memory import trim
from esci_tournament.deployments.scorer.metrics import ScorerMetrics
from esci_tournament.registry.errors import TournamentError
from esci_tournament.registry.settings import Settings
from esci_tournament.tasks.ensemble.aggregate import Aggregator
from esci_tournament.tasks.ensemble.subsets import Subsets
from tests.deployments.scorer.conftest import NAMES, constant_ensemble

pytestmark = pytest.mark.slow

PAGE = Pairs("lamp", "us", [Text(f"P{row}", f"title {row} ランプ", "", "", "", "x" * row) for row in range(50)])
Work = Callable[[ServingChampion], Coroutine[Any, Any, Any]]


@pytest.fixture(scope="module")
def ensemble(fitted: tuple[Aggregator, Subsets], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return constant_ensemble(tmp_path_factory.mktemp("fleet") / "ensemble", fitted, 0)


@pytest.fixture(scope="module")
def fleets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleets]:
    """Two replicas for each champion, and the zygote that they come from."""
    made = Fleets(Settings(replicas=2), "cpu", tmp_path_factory.mktemp("vectors"))
    yield made
    made.close()


@pytest.fixture
def manned(fleets: Fleets, ensemble: Path) -> Callable[..., Any]:
    """Run something with a champion at work; the settings of its members may be given."""

    def run(work: Work, **changes: Any) -> Any:
        shared = ServingContext(Settings(**changes), PendingRequests(), ScorerMetrics())

        async def go() -> Any:
            fleet = await asyncio.to_thread(fleets.fleet, ensemble, None, "data", {})
            card = Card("esci-ensemble", 1, "t", "data", NAMES)
            champion = await asyncio.to_thread(
                ServingChampion.load, ensemble, card, ProductCatalogue.empty(), fleet, shared
            )
            try:
                await champion.start_replicas([await champion.recruit(patient=True)], PAGE, 30)
                return await work(champion)
            finally:
                champion.close()

        return asyncio.run(go())

    return run


def replicas(champion: ServingChampion) -> list[ProcessReplica]:
    return champion.dispatcher.replicas  # type: ignore[return-value]


async def until(true: Callable[[], Any], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


async def answers(champion: ServingChampion, pairs: Pairs = PAGE) -> list[Any]:
    return [await question.answer for question in champion.dispatcher.ask(NAMES, pairs)]


def test_processes_answer_as_members_in_this_process_do(manned, ensemble):
    local = Fleets(Settings(replicas=0), "cpu", ensemble).fleet(ensemble, None, "data", {})
    expected = {
        name: candidate.predict_proba(*PAGE.frames)
        for name, candidate in local.candidates.items()  # type: ignore[attr-defined]
    }

    async def work(champion: ServingChampion) -> None:
        for _ in range(5):
            got = await champion.scores(PAGE, 30)
            assert all(np.array_equal(got[name], expected[name]) for name in NAMES)
        assert len({replica.pid for replica in replicas(champion)}) == 2
        assert champion.fleet.devices == ["cpu"]
        # More pages at once than a replica remembers, and more pairs than a batch holds
        pages = [Pairs(f"lamp {number}", "jp", PAGE.texts[: 1 + number % 3]) for number in range(400)]
        whole = Pairs("lamp", "es", PAGE.texts * 20)
        for found in await asyncio.gather(*(answers(champion, pairs) for pairs in [*pages, whole])):
            assert all(np.allclose(one[0], expected[name][0]) for one, name in zip(found, NAMES, strict=True))

    manned(work)


def test_large_pages_are_not_kept(manned):
    """S2: the newest pages were kept whatever their size, by the scorer and by each replica."""

    def taken(champion: ServingChampion) -> list[int]:
        return [
            psutil.Process(pid).memory_full_info().uss
            for pid in (os.getpid(), *(one.pid for one in replicas(champion)))
        ]

    async def work(champion: ServingChampion) -> None:
        await answers(champion)
        before = taken(champion)
        for number in range(24):
            large = PAGE.texts[0]._replace(description=f"{number} lamp " * 700_000)
            await answers(champion, Pairs(f"lamp {number}", "us", [large]))
        await asyncio.sleep(0)
        end = time.monotonic() + 10
        while any(now - then > 40 * 2**20 for now, then in zip(taken(champion), before, strict=True)):
            assert time.monotonic() < end, (before, taken(champion))
            await asyncio.sleep(0.2)
            trim()
        for replica in replicas(champion):
            assert sum(len(pairs.encoded) for _, pairs in replica._pages.values()) == replica._remembered_bytes

    manned(work)


def test_pages_do_not_notice_that_replicas_are_killed(manned):
    async def ask_on(champion: ServingChampion, stop: asyncio.Event) -> int:
        count = 0
        while not stop.is_set():
            found = await answers(champion)
            # A page that sees two of them die is given up; that two die within its milliseconds is not tried here
            assert all(isinstance(answer, np.ndarray) for answer in found), found
            count += 1
        return count

    async def work(champion: ServingChampion) -> None:
        stop = asyncio.Event()
        asking = [asyncio.create_task(ask_on(champion, stop)) for _ in range(4)]
        chosen = random.Random(0)
        for _ in range(6):
            await asyncio.sleep(0.2)
            os.kill(chosen.choice(replicas(champion)).pid, signal.SIGKILL)
            await until(lambda: len(replicas(champion)) < 2)
            await until(lambda: len(replicas(champion)) == 2)
            champion._losses = 0  # without the wait that is for those that do not last
        stop.set()
        assert min(await asyncio.gather(*asking)) > 10

    manned(work)


def test_a_replica_that_hangs_is_killed_and_replaced(manned):
    async def work(champion: ServingChampion) -> None:
        stopped = replicas(champion)
        for replica in stopped:
            os.kill(replica.pid, signal.SIGSTOP)
        found = await answers(champion)
        assert any(isinstance(answer, NotAnswered) for answer in found)
        await until(lambda: len(replicas(champion)) == 2 and not set(stopped) & set(replicas(champion)))
        await asyncio.sleep(0.2)
        assert all(isinstance(answer, np.ndarray) for answer in await answers(champion))
        assert champion.usable

    manned(work, member_timeout_s=0.3, member_retry_s=0.1)


def test_what_loaded_the_members_may_be_killed_as_well(manned, fleets):
    async def work(champion: ServingChampion) -> None:
        keeper = psutil.Process(replicas(champion)[0].pid).parent()
        zygote = psutil.Process(fleets._zygote._process.pid)
        assert keeper.parent().pid == zygote.pid
        keeper.kill()
        zygote.kill()
        assert all(isinstance(answer, np.ndarray) for answer in await answers(champion))  # the replicas go on
        gone = replicas(champion)[0]
        os.kill(gone.pid, signal.SIGKILL)
        await until(lambda: gone not in replicas(champion))
        await until(lambda: len(replicas(champion)) == 2)
        assert all(isinstance(answer, np.ndarray) for answer in await answers(champion))

    manned(work)


def test_with_the_champion_its_processes_end(manned, fleets):
    async def work(champion: ServingChampion) -> list[psutil.Process]:
        own = [psutil.Process(replica.pid) for replica in replicas(champion)]
        os.kill(own[0].pid, signal.SIGSTOP)  # even one that does not listen
        champion.dispatcher.ask(NAMES, PAGE)
        await asyncio.sleep(0.05)
        os.kill(own[0].pid, signal.SIGCONT)
        return [*own, own[0].parent()]

    mine = manned(work)
    _, alive = psutil.wait_procs(mine, 5)
    assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]
    assert psutil.pid_exists(fleets._zygote._process.pid)


def test_what_cannot_be_loaded_is_told(fleets, ensemble, tmp_path):
    with pytest.raises(TournamentError, match="nowhere cannot be loaded"):
        fleets.fleet(tmp_path / "nowhere", None, "data", {})
    assert fleets.fleet(ensemble, None, "data", {}).size == 2
