"""Changes of the champion in a real ledger and a real MLflow, while requests are being answered."""

from __future__ import annotations

import asyncio
import gc
import shutil
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from esci_tournament.deployments.scorer.champion import ServingChampion
from esci_tournament.deployments.scorer.server import SWITCH_SECONDS, ScorerParts, build_scorer
from esci_tournament.registry import promotion
from esci_tournament.registry.attestation import DIFFERS
from esci_tournament.registry.manifests import as_payload
from esci_tournament.registry.packaging import package_ensemble
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.versions import EnsembleVersion
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.data.store import save_dataset
from esci_tournament.tasks.ensemble.aggregate import Aggregator
from esci_tournament.tasks.ensemble.subsets import Subsets
from esci_tournament.tasks.families.score_file.model import ScoreFile
from tests.deployments.scorer.conftest import NAMES, constant_ensemble

pytestmark = pytest.mark.slow

PAGE = {
    "query": "red lamp",
    "locale": "us",
    "products": [{"title": f"lamp {number}"} for number in range(20)],
    "deadline_ms": 60_000,
}
VERSIONS = 3


@dataclass
class Realm:
    """A home whose ensembles each give one constant answer, so that an answer tells who gave it."""

    settings: Settings
    workspace: Workspace
    versions: list[EnsembleVersion]
    folders: list[Path]

    def promote(self, number: int) -> None:
        """Promote the version with a number from 0 on."""
        ledger, models, version = self.workspace.ledger, self.workspace.models, self.versions[number]
        sequence = ledger.standing(models.ensemble_name).sequence
        verdict = ledger.record_verdict(version.tournament, "promote", against=sequence)
        decision = ledger.record_decision(verdict.id, "approve", "a test", "because")
        promotion.promote(ledger, models, version, decision, sequence)

    def rollback(self) -> None:
        promotion.rollback(self.workspace.ledger, self.workspace.models, f"a test at {time.monotonic()}")

    def rig(self, **changes) -> ScorerParts:
        return build_scorer(self.settings.model_copy(update=changes))


@pytest.fixture(scope="module")
def made(fitted: tuple[Aggregator, Subsets], tiny_dataset, tmp_path_factory) -> Realm:
    """The realm, its ensembles registered and none promoted."""
    root = tmp_path_factory.mktemp("realm")
    # In this process, where a test can play with the members; the processes have tests of their own
    settings = Settings(home=root / "home", swap_interval_s=0.05, rate_per_s=None, replicas=0)
    workspace = Workspace(settings)
    key = workspace.stages.key("load", version=tiny_dataset.version)
    workspace.stages.obtain(key, lambda folder: save_dataset(tiny_dataset, folder))
    workspace.ledger.record_data_version(tiny_dataset.version)
    versions, folders = [], []
    for number in range(VERSIONS):
        folders.append(constant_ensemble(root / f"ensemble-{number}", fitted, number))
        tournament = f"t-{number}"
        workspace.ledger.start_tournament(tournament, tiny_dataset.version)
        package = root / f"package-{number}"
        content = {"members": list(NAMES)} | as_payload(package_ensemble(folders[-1], package, {}))
        version = workspace.models.register_ensemble(folders[-1], NAMES, tournament, package=package)
        workspace.ledger.record_ensemble(tournament, version.name, version.version, content)
        versions.append(version)
    return Realm(settings, workspace, versions, folders)


@pytest.fixture(autouse=True)
def quick_switches() -> Iterator[None]:
    """Let threads take turns as often as `serve` has them do."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def realm(made: Realm, tmp_path: Path) -> Iterator[Realm]:
    """A realm of the test's own; the artifacts of MLflow stay where they are, and are read only."""
    home = tmp_path / "home"
    shutil.copytree(made.settings.home, home, ignore=shutil.ignore_patterns("mlartifacts", "serving", "cache"))
    settings = made.settings.model_copy(update={"home": home})
    realm = Realm(settings, Workspace(settings), made.versions, made.folders)
    yield realm
    realm.workspace.ledger.close()


@asynccontextmanager
async def running(rig: ScorerParts, champion: bool = True) -> AsyncIterator[httpx.AsyncClient]:
    """Run an application and wait until somebody serves."""
    transport = httpx.ASGITransport(rig.app)
    async with (
        rig.app.router.lifespan_context(rig.app),
        httpx.AsyncClient(transport=transport, base_url="http://s") as http,
    ):
        if champion:
            await until(lambda: rig.scorer.active.champion is not None)
        yield http


async def until(true, seconds: float = 180) -> None:
    for _ in range(int(seconds / 0.02)):
        if true():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come to pass")


def gone(folder: Path) -> bool:
    """Remove a folder into which a thread that is about to end may still write, and return whether it is gone."""
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def voice(rig: ScorerParts) -> int | None:
    champion = rig.scorer.active.champion
    return champion.card.version if champion else None


def test_twenty_swaps_under_load_fail_no_request_and_mix_no_answer(realm):
    realm.promote(0)
    rig = realm.rig(replicas=2)
    seen: dict[int, set[str]] = {}
    failures: list[str] = []

    async def ask_on(http: httpx.AsyncClient, number: int, stop: asyncio.Event) -> None:
        count = 0
        while not stop.is_set():
            page = {**PAGE, "query": f"lamp {count % 7}" if number % 2 else f"lamp {number} {count}"}
            answer = await http.post("/v1/score", json=page)
            if answer.status_code != 200 or not answer.json()["complete"]:
                failures.append(answer.text)
                return
            content = answer.json()
            said = {str(one["probabilities"]) for one in content["products"]}
            seen.setdefault(content["champion"]["version"], set()).update(said)
            count += 1
            await asyncio.sleep(0.002)  # a page that is known is answered without giving the loop away

    async def go() -> None:
        async with running(rig) as http:
            stop = asyncio.Event()
            asking = [asyncio.create_task(ask_on(http, number, stop)) for number in range(6)]
            for number in range(20):
                step = (
                    realm.rollback if number % 3 == 2 else lambda number=number: realm.promote((number + 1) % VERSIONS)
                )
                await asyncio.to_thread(step)
                wanted = realm.workspace.ledger.champion("esci-ensemble").version
                await until(lambda wanted=wanted: voice(rig) == wanted)
            stop.set()
            await asyncio.gather(*asking)
            # The others are let go without the garbage collector's help
            await until(lambda: sum(type(one) is ServingChampion for one in gc.get_objects()) == 1)

    asyncio.run(go())
    assert not failures
    assert set(seen) == {version.version for version in realm.versions}
    # Each champion has one constant answer: nobody ever spoke with another's voice
    assert all(len(said) == 1 for said in seen.values()), seen
    assert len(set.union(*seen.values())) == VERSIONS


def test_a_champion_that_fails_its_warm_up_is_refused_told_and_tried_again_when_promoted_again(realm, monkeypatch):
    realm.promote(0)
    rig = realm.rig()
    broken = realm.versions[1].version

    def broken_load(folder: Path, device: str = "cpu") -> ScoreFile:
        model = original(folder, device)
        if f"-{broken}/" in str(folder):
            model._mix = np.full(4, np.nan, np.float32)
        return model

    original = ScoreFile.load
    monkeypatch.setattr(ScoreFile, "load", broken_load)

    async def go() -> None:
        async with running(rig) as http:
            await asyncio.to_thread(realm.promote, 1)
            await until(lambda: rig.follower.state.refused)
            assert voice(rig) == realm.versions[0].version
            assert (await http.post("/v1/score", json=PAGE)).json()["champion"]["version"] == voice(rig)
            ready = await http.get("/readyz")
            assert ready.status_code == 200
            assert "not finite" in ready.json()["refused"][f"esci-ensemble/{broken}"]
            assert "scorer_swaps_refused_total 1.0" in (await http.get("/metrics")).text
        again = realm.rig()  # and a process that begins now goes on with who served before
        async with running(again):
            assert voice(again) == realm.versions[0].version
            assert again.follower.state.refused
            monkeypatch.undo()
            await asyncio.to_thread(realm.rollback)
            await asyncio.to_thread(realm.promote, 1)
            await until(lambda: voice(again) == broken)
            assert not again.follower.state.refused

    asyncio.run(go())
    events = realm.workspace.ledger.events(kind="scorer_refused")
    assert {event.subject for event in events} == {f"esci-ensemble/{broken}"}
    assert "not finite" in events[0].payload["reason"]


def test_it_goes_on_without_mlflow_and_without_the_ledger_and_begins_with_its_own_copy(realm):
    realm.promote(0)
    first = realm.versions[0].version

    async def serve_once(rig: ScorerParts, then=lambda: None) -> dict:
        async with running(rig) as http:
            then()
            await asyncio.sleep(0.3)
            answer = await http.post("/v1/score", json=PAGE)
            assert answer.json()["champion"]["version"] == first
            return (await http.get("/readyz")).json()

    def lose_registry() -> None:
        for name in ("mlflow.db", "ledger.db"):
            (realm.settings.home / name).rename(realm.settings.home / f"{name}.gone")
            (realm.settings.home / name).mkdir()

    assert asyncio.run(serve_once(realm.rig(), lose_registry))["ready"]
    # And a new process, which finds neither of them
    state = asyncio.run(serve_once(realm.rig(mlflow_uri="http://127.0.0.1:9", ledger_url=None)))
    assert state["ready"]
    assert state["trouble"]


def test_a_promotion_that_cannot_be_copied_yet_is_taken_over_as_soon_as_it_can(realm):
    realm.promote(0)
    rig = realm.rig()

    async def go() -> None:
        async with running(rig):
            artifacts = realm.workspace.models.download(realm.versions[2])
            away = artifacts.rename(artifacts.with_name("away"))
            await asyncio.to_thread(realm.promote, 2)
            await until(lambda: rig.follower.state.trouble)
            assert voice(rig) == realm.versions[0].version
            away.rename(artifacts)
            await until(lambda: voice(rig) == realm.versions[2].version)
            assert not rig.follower.state.trouble

    asyncio.run(go())


def flip(path: Path) -> bytes:
    """Change one bit in the middle of a file, and return what it held."""
    before = path.read_bytes()
    content = bytearray(before)
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return before


def test_a_champion_whose_files_are_not_those_that_were_approved_is_refused_and_the_old_one_goes_on(realm):
    """A1: weights in MLflow's store, and in the scorer's own copy, are changed after the approval."""
    realm.promote(0)
    rig, models, ledger = realm.rig(), realm.workspace.models, realm.workspace.ledger
    first, second = (one.version for one in realm.versions[:2])
    stored = next(models.download(realm.versions[1]).glob("members/*/spec.json"))
    title = f"esci-ensemble/{second}"

    async def go() -> None:
        async with running(rig) as http:
            await asyncio.to_thread(realm.promote, 1)
            await until(lambda: rig.follower.state.refused)
            assert "spec.json has another content" in (await http.get("/readyz")).json()["refused"][title]
            assert (await http.post("/v1/score", json=PAGE)).json()["champion"]["version"] == first
            assert "scorer_swaps_refused_total 1.0" in (await http.get("/metrics")).text
        again = realm.rig()  # a process that begins now goes on with who served before
        async with running(again):
            assert voice(again) == first

    before = flip(stored)
    try:
        asyncio.run(go())
    finally:
        stored.write_bytes(before)
    assert {one.subject for one in ledger.events(kind="scorer_refused")} == {title}
    assert [one.subject for one in ledger.events(kind=DIFFERS)] == [title], "told once, for the watcher to announce"
    asyncio.run(damaged_copy(realm, first))


async def damaged_copy(realm: Realm, first: int) -> None:
    """Damage the scorer's own copy: it is fetched again, and not served while MLflow is out of reach."""
    realm.rollback()
    copies = realm.settings.home / "serving" / "champions" / f"esci-ensemble-{first}"
    copy = next(copies.glob("ensemble/*/members/*/spec.json"))
    before = flip(copy)
    async with running(realm.rig()) as http:
        assert (await http.get("/readyz")).json()["ready"]
        assert next(copies.glob("ensemble/*/members/*/spec.json")).read_bytes() == before
    flip(next(copies.glob("ensemble/*/members/*/spec.json")))
    alone = realm.rig(mlflow_uri="http://127.0.0.1:9")
    async with running(alone, champion=False) as http:
        await until(lambda: alone.follower.state.trouble)
        await asyncio.sleep(0.2)
        assert voice(alone) is None
        assert (await http.get("/readyz")).status_code == 503


def test_what_is_asked_for_most_is_known_when_a_new_champion_takes_its_seat(realm, tiny_dataset):
    realm.promote(0)
    ids = tiny_dataset.products["product_id"][tiny_dataset.products["locale"] == "us"].tolist()[:30]
    page = {"query": "Red Lamp", "locale": "us", "products": [{"id": one} for one in ids]}

    async def ask_once(rig: ScorerParts) -> dict:
        async with running(rig) as http:
            assert (await http.post("/v1/score", json=page)).json()["cache_hits"] == 0
            await asyncio.to_thread(realm.promote, 1)
            await until(lambda: voice(rig) == realm.versions[1].version)
            return (await http.post("/v1/score", json=page)).json()

    answer = asyncio.run(ask_once(realm.rig()))
    assert (answer["champion"]["version"], answer["cache_hits"]) == (realm.versions[1].version, 30)

    async def restarted(rig: ScorerParts) -> None:  # what is asked for most outlives a restart
        async with running(rig):
            await asyncio.to_thread(realm.promote, 2)
            await until(lambda: voice(rig) == realm.versions[2].version)
            assert rig.scorer.labels.cache.stats().entries == 90

    asyncio.run(restarted(realm.rig()))


def test_before_anybody_was_promoted_it_waits(realm):
    rig = realm.rig()

    async def go() -> None:
        async with running(rig, champion=False) as http:
            await until(lambda: rig.follower.state.looked)
            assert (await http.get("/readyz")).status_code == 503
            await asyncio.to_thread(realm.promote, 0)
            await until(lambda: voice(rig))
            assert (await http.get("/readyz")).status_code == 200

    asyncio.run(go())


DAMAGES = {
    "cut": lambda text: text[: len(text) // 2],
    "a child that is not there": lambda text: text.replace("left_child=", "left_child=9", 1),
    "no number of classes": lambda text: text.replace("num_class=4", "num_class=-1", 1),
}


@pytest.mark.parametrize(
    ("damage", "where"),
    list(zip(DAMAGES, ["aggregator", "subsets/001", "aggregator"], strict=True)),
    ids=list(DAMAGES),
)
def test_a_champion_whose_aggregator_is_damaged_is_refused_and_the_one_before_goes_on(
    realm, tiny_dataset, tmp_path, damage, where
):
    """F8.2: the scorer ended with 134; F8.1: so did one that began then."""
    folder = tmp_path / "damaged"
    shutil.copytree(realm.folders[1], folder)
    text = folder / where / "aggregator.txt"
    text.write_text(DAMAGES[damage](text.read_text(encoding="utf-8")), encoding="utf-8")
    work = realm.workspace
    work.ledger.start_tournament("t-damaged", tiny_dataset.version)
    content = {"members": list(NAMES)} | as_payload(package_ensemble(folder, tmp_path / "package", {}))
    version = work.models.register_ensemble(folder, NAMES, "t-damaged", package=tmp_path / "package")
    work.ledger.record_ensemble("t-damaged", version.name, version.version, content)
    realm.promote(0)
    rig = realm.rig()
    realm.versions = [*realm.versions, version]

    async def go() -> None:
        async with running(rig) as http:
            await asyncio.to_thread(realm.promote, VERSIONS)
            await until(lambda: rig.follower.state.refused)
            assert (await http.post("/v1/score", json=PAGE)).json()["champion"]["version"] == realm.versions[0].version
            assert "aggregator" in (await http.get("/readyz")).json()["refused"][version.id]
        again = realm.rig()
        async with running(again):
            assert voice(again) == realm.versions[0].version
        await until(lambda: gone(realm.settings.home / "serving"))
        alone = realm.rig()  # nothing served on this machine before
        async with running(alone, champion=False) as http:
            await until(lambda: alone.follower.state.refused)
            assert (await http.get("/readyz")).status_code == 503

    asyncio.run(go())
