"""S6: a page that a member cannot bear ends with an error of its own, and others are answered meanwhile.

The replicas are real processes, because what is tried ends processes.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from esci_tournament.deployments.scorer.catalogue import ProductCatalogue, Text
from esci_tournament.deployments.scorer.champion import Card, ServingChampion
from esci_tournament.deployments.scorer.compute.dispatcher import PendingRequests, ServingContext
from esci_tournament.deployments.scorer.compute.fleet import Fleets
from esci_tournament.deployments.scorer.compute.pairs import NotAnswered, Pairs
from esci_tournament.deployments.scorer.metrics import ScorerMetrics
from esci_tournament.registry.settings import Settings
from esci_tournament.tasks.ensemble.aggregate import Aggregator
from esci_tournament.tasks.ensemble.ensemble import write_ensemble
from esci_tournament.tasks.ensemble.subsets import Subsets
from tests import plugins
from tests.deployments.scorer.conftest import NAMES

pytestmark = pytest.mark.slow  # a zygote, a keeper and two replicas

# A model whose mood follows from the query
MOODY = """
import os, sys, time
from typing import Literal
import numpy as np
from esci_tournament.registry.specs import NamedSpec

class Panic(BaseException):
    pass

class MoodySpec(NamedSpec):
    family: Literal["moody"] = "moody"

class Moody:
    spec_class = MoodySpec
    forkable = True
    broken = False

    def __init__(self, spec): self.spec = spec
    def fit(self, data): return self
    def save(self, folder): pass
    def parameters(self): return 0

    @classmethod
    def load(cls, folder, device="cpu"):
        return cls(MoodySpec(name="moody"))

    def predict_proba(self, pairs, products):
        moods = set(pairs["query"])
        if self.broken or "panic" in moods:
            raise Panic("called `Option::unwrap()` on a `None` value")
        if "poisons the lock" in moods:
            self.broken = True
            raise Panic("poisoned")
        if "memory" in moods:
            raise MemoryError
        if "recursion" in moods:
            raise RecursionError("too deep")
        if "leaves" in moods:
            sys.exit("bye")
        if "exits" in moods:
            os._exit(1)
        if "hangs" in moods or any("hangs" in title for title in products["title"]):
            time.sleep(600)
        return np.full((len(pairs), 4), 0.25, np.float32)
"""
POINTS = '[project.entry-points."esci_tournament.families"]\nmoody = "moody_family:Moody"\n'
LIMIT = 0.5  # page_timeout_s


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the plug-in, where this process and those it starts find it."""
    folder = tmp_path_factory.mktemp("plugin")
    plugins.install(folder, "moody_family", MOODY, POINTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        patch.syspath_prepend(folder)
        yield folder
    sys.modules.pop("moody_family", None)


@pytest.fixture(scope="module")
def ensemble(place: Path, fitted: tuple[Aggregator, Subsets], tmp_path_factory: pytest.TempPathFactory) -> Path:
    aggregator, subsets = fitted
    folder = tmp_path_factory.mktemp("moody")
    (folder / "member").mkdir()
    (folder / "member" / "spec.json").write_text(json.dumps({"name": "moody", "family": "moody"}))
    (folder / "ensemble").mkdir()
    write_ensemble(folder / "ensemble", [(name, folder / "member") for name in NAMES], aggregator)
    subsets.save(folder / "ensemble" / "subsets")
    return folder / "ensemble"


@pytest.fixture(scope="module")
def fleets(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleets]:
    made = Fleets(Settings(replicas=2), "cpu", tmp_path_factory.mktemp("vectors"))
    yield made
    made.close()


@pytest.fixture
def manned(fleets: Fleets, ensemble: Path) -> Callable[..., Any]:
    """Run something with two replicas at work."""

    def run(work: Callable[[ServingChampion], Coroutine[Any, Any, Any]]) -> Any:
        shared = ServingContext(Settings(page_timeout_s=LIMIT), PendingRequests(), ScorerMetrics())

        async def go() -> Any:
            fleet = await asyncio.to_thread(fleets.fleet, ensemble, None, "data", {})
            card = Card("esci-ensemble", 1, "t", "data", NAMES)
            champion = await asyncio.to_thread(
                ServingChampion.load, ensemble, card, ProductCatalogue.empty(), fleet, shared
            )
            try:
                await champion.start_replicas([await champion.recruit(patient=True)], page("warm"), 30)
                return await work(champion)
            finally:
                champion.close()

        return asyncio.run(go())

    return run


def page(query: str, size: int = 3, title: str = "title") -> Pairs:
    return Pairs(query, "us", [Text(f"P{row}", f"{title} {row}", "", "", "", "") for row in range(size)])


async def answers(champion: ServingChampion, pairs: Pairs) -> list[Any]:
    return [await question.answer for question in champion.dispatcher.ask(NAMES, pairs)]


async def beside(champion: ServingChampion, *poisons: Pairs) -> tuple[list[Any], float]:
    """Ask for pages while honest ones are asked for all the time; the honest ones have to be answered.

    Returns:
        The answers about the first poison, and the longest time that an honest page took, seconds.
    """
    slowest, stop = 0.0, asyncio.Event()

    async def honest(name: str) -> None:
        nonlocal slowest
        number = 0
        while not stop.is_set():
            begun, number = time.monotonic(), number + 1
            found = await answers(champion, page(f"{name} {number}"))
            assert all(isinstance(answer, np.ndarray) for answer in found), found
            assert champion.usable  # which is what /readyz asks
            slowest = max(slowest, time.monotonic() - begun)
            await asyncio.sleep(0.02)

    asking = [asyncio.create_task(honest(name)) for name in ("lamp", "desk")]
    await asyncio.sleep(0.1)
    found = await asyncio.gather(*(answers(champion, poison) for poison in poisons))
    await asyncio.sleep(0.5)
    stop.set()
    await asyncio.gather(*asking)
    return found[0], slowest


@pytest.mark.parametrize("mood", ["panic", "poisons the lock", "memory", "recursion", "leaves", "exits", "hangs"])
def test_a_poisonous_page_gets_its_error_and_honest_pages_their_answers(manned: Callable[..., Any], mood: str) -> None:
    async def work(champion: ServingChampion) -> None:
        found, slowest = await beside(champion, *(page(mood, size) for size in (3, 4, 5, 6)))
        assert all(isinstance(answer, NotAnswered) for answer in found), found
        assert slowest < 8 * LIMIT + 4
        assert not any(member.breaker.fenced for member in champion.members.values())
        for _ in range(200):
            if len(champion.dispatcher.replicas) == 2:
                return
            await asyncio.sleep(0.02)
        pytest.fail("a lost replica is not replaced")

    manned(work)


def test_a_product_that_a_member_hangs_on_holds_no_page_with_the_same_query(manned: Callable[..., Any]) -> None:
    async def work(champion: ServingChampion) -> None:
        poison = page("lamp", title="hangs")
        found, _ = await beside(champion, poison)
        assert all(isinstance(answer, NotAnswered) for answer in found)
        assert all(isinstance(answer, np.ndarray) for answer in await answers(champion, page("lamp")))
        found, _ = await beside(champion, poison)  # alone, one member at a time
        assert all(isinstance(answer, NotAnswered) for answer in found)
        again = champion.dispatcher.ask(NAMES, poison)
        assert all(question.done for question in again), "it is computed again"
        assert all(isinstance(question.answer.result(), NotAnswered) for question in again)

    manned(work)
