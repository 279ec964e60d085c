"""A champion that builds in milliseconds: members that score by the text, real aggregators, a real catalogue."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from esci_tournament.deployments.scorer.admission import Admission
from esci_tournament.deployments.scorer.app import make_app
from esci_tournament.deployments.scorer.catalogue import ProductCatalogue
from esci_tournament.deployments.scorer.champion import Card, ServingChampion
from esci_tournament.deployments.scorer.compute.dispatcher import PendingRequests, ServingContext
from esci_tournament.deployments.scorer.compute.fleet import LocalFleet
from esci_tournament.deployments.scorer.engine import Engine
from esci_tournament.deployments.scorer.gate import Gate
from esci_tournament.deployments.scorer.keys import Keys
from esci_tournament.deployments.scorer.labels import Labels
from esci_tournament.deployments.scorer.metrics import ScorerMetrics
from esci_tournament.deployments.scorer.service import Scorer
from esci_tournament.deployments.scorer.swap import Following
from esci_tournament.deployments.scorer.warm import Frequent
from esci_tournament.registry.settings import Settings
from esci_tournament.tasks.data.store import write_frame
from esci_tournament.tasks.ensemble.aggregate import Aggregator, AggregatorParameters
from esci_tournament.tasks.ensemble.early_exit import EarlyExit, Level
from esci_tournament.tasks.ensemble.ensemble import write_ensemble
from esci_tournament.tasks.ensemble.fitting import fit_aggregator
from esci_tournament.tasks.ensemble.subsets import Subsets
from esci_tournament.tasks.families.protocol import with_defaults

NAMES = ("alpha/1", "beta/1", "gamma/1")
PAGE = {"query": "red lamp", "locale": "us", "products": [{"id": f"P{number}"} for number in range(40)]}


@with_defaults
class Hashed:
    """A candidate whose probabilities follow from query and text alone; it can be told to wait, to hang or to fail."""

    def __init__(self, salt: str) -> None:
        self.salt = salt
        self.calls: list[int] = []
        self.delay_s = 0.0
        self.poison = "poison"
        self.fails = False
        self.free = threading.Event()
        self.free.set()

    def predict_proba(self, pairs: pd.DataFrame, products: pd.DataFrame) -> np.ndarray:
        self.calls.append(len(pairs))
        time.sleep(self.delay_s)
        self.free.wait(30)
        titles = products["title"].iloc[pairs["product"]]
        if self.fails or titles.str.contains(self.poison).any():
            raise RuntimeError("it cannot bear this")
        return np.stack([self._one(*row) for row in zip(pairs["query"], pairs["locale"], titles, strict=True)])

    def _one(self, query: str, locale: str, title: str) -> np.ndarray:
        digest = hashlib.blake2b(f"{self.salt}{query}{locale}{title}".encode(), digest_size=8).digest()
        weights = np.random.default_rng(int.from_bytes(digest, "little")).dirichlet(np.full(4, 0.4))
        return weights.astype(np.float32)


@pytest.fixture(scope="session")
def fitted() -> tuple[Aggregator, Subsets]:
    """An aggregator of three members, and those of all their subsets."""
    rng = np.random.default_rng(0)
    columns = rng.dirichlet(np.full(4, 0.4), (600, 3)).astype(np.float32)
    groups = np.repeat(rng.integers(1, 2**63, 75, dtype=np.uint64), 8)
    labels = columns.mean(axis=1).argmax(axis=1).astype(np.int8)
    parameters = AggregatorParameters(maximum_rounds=20)
    aggregator = fit_aggregator(columns, labels, groups, NAMES, parameters)
    return aggregator, Subsets.fit(columns, labels, groups, aggregator, order=NAMES)


def constant_ensemble(folder: Path, fitted: tuple[Aggregator, Subsets], seed: int) -> Path:
    """Write an ensemble whose members each give one answer to everything, drawn by `seed`; return its folder."""
    aggregator, subsets = fitted
    generator = np.random.default_rng(seed)
    members = []
    for name in NAMES:
        place = folder.with_name(f"{folder.name}-{name.replace('/', '-')}")
        place.mkdir(parents=True)
        np.save(place / "ids.npy", np.zeros(0, np.int64))
        np.save(place / "probabilities.npy", np.zeros((0, 4), np.float32))
        np.save(place / "mix.npy", generator.dirichlet(np.ones(4)).astype(np.float32))
        spec = {"name": name[:-2], "family": "scores", "file": "nowhere.parquet", "trained_on": "other_queries"}
        (place / "spec.json").write_text(json.dumps(spec | {"provenance": "made for a test"}), encoding="utf-8")
        members.append((name, place))
    folder.mkdir()
    write_ensemble(folder, members, aggregator)
    subsets.save(folder / "subsets")
    return folder


@pytest.fixture(scope="session")
def products(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Arrow file of 300 products, a hundred a locale."""
    numbers = range(300)
    frame = pd.DataFrame(
        {
            "product_id": [f"P{number % 100}" for number in numbers],
            "locale": pd.Categorical([("us", "es", "jp")[number // 100] for number in numbers]),
            "title": [f"title {number} ランプ" for number in numbers],
            "brand": ["Velo" if number % 2 else "" for number in numbers],
            "color": "red",
            "bullets": "",
            "description": [f"about {number}" for number in numbers],
        }
    )
    path = tmp_path_factory.mktemp("products") / "products.arrow"
    write_frame(frame, path)
    return path


@pytest.fixture(scope="session")
def catalogue(products: Path, tmp_path_factory: pytest.TempPathFactory) -> ProductCatalogue:
    """The catalogue of those products. Read only."""
    return ProductCatalogue.open(products, tmp_path_factory.mktemp("indices"))


@dataclass
class Stand:
    """A scorer that is put together by hand; its members can be played with. All of it lives in one event loop."""

    scorer: Scorer
    shared: ServingContext
    make: Callable[..., ServingChampion]
    gate: Gate
    run: Callable[[Coroutine[Any, Any, Any]], Any]
    following: Following = field(default_factory=Following)

    @property
    def app(self):
        return make_app(self.scorer, self.gate, self.following)

    @property
    def champion(self) -> ServingChampion:
        assert self.scorer.active.champion is not None
        return self.scorer.active.champion

    def candidate(self, name: str) -> Hashed:
        return self.champion.fleet.candidates[name]  # type: ignore[attr-defined]


@pytest.fixture
def stand(
    fitted: tuple[Aggregator, Subsets], catalogue: ProductCatalogue, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Stand]:
    """A scorer with a champion of three members; settings come from the mark `scorer`."""
    import_module("torch")  # a replica does so with its first page, which should not count against a deadline
    mark = request.node.get_closest_marker("scorer")
    settings = Settings(home=tmp_path, **(mark.kwargs if mark else {}))
    metrics, arrivals = ScorerMetrics(), PendingRequests()
    shared = ServingContext(settings, arrivals, metrics)
    engine = Engine(metrics, Admission(settings.queued_pairs), settings.exit_check_share)
    scorer = Scorer(settings, metrics, engine, Labels(None, metrics), arrivals, Frequent(1000))
    made: list[tuple[ServingChampion, list[Hashed]]] = []
    with asyncio.Runner() as runner:

        def make(version: int = 1, early_exit: EarlyExit | None = None, salt: str = "") -> ServingChampion:
            candidates: dict[str, Any] = {name: Hashed(f"{salt}{name}") for name in NAMES}
            fleet = LocalFleet(candidates, settings.members_at_once or 8, 1, settings.batch_pairs)
            card = Card("esci-ensemble", version, f"t-{version}", "data", NAMES)
            champion = ServingChampion(card, NAMES, fleet, fitted[1], early_exit, catalogue, shared)
            made.append((champion, list(candidates.values())))
            runner.run(champion.recruit())
            return champion

        scorer.active.take(make())
        gate = Gate(Keys(tmp_path / "keys.json"), settings.rate_per_s, settings.rate_burst_s, open=True)
        yield Stand(scorer, shared, make, gate, runner.run)
        for champion, candidates in made:
            for candidate in candidates:
                candidate.free.set()
            champion.close()
        engine.close()


def ask(stand, *pages, **more):
    """Return the answers to pages that are sent at once."""

    async def go():
        transport = httpx.ASGITransport(stand.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://scorer") as client:
            return await asyncio.gather(*(client.post("/v1/score", json=page, **more) for page in pages))

    return stand.run(go())


def get(stand, path, **more):
    """Return the answer to a GET."""

    async def go():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(stand.app), base_url="http://scorer") as client:
            return await client.get(path, **more)

    return stand.run(go())


def exit_rule(*thresholds: float | None) -> EarlyExit:
    """Return a rule of early exit with a threshold after each member but the last."""
    level = Level(0.005, thresholds)
    return EarlyExit(NAMES, level, (level,))
