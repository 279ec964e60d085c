"""A family from another distribution has every feature of the built-in ones, including refreshed embeddings.

The graph networks are copied into a separate distribution under another name that no other code refers to.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from esci_tournament.deployments.scorer.catalogue import Text
from esci_tournament.deployments.scorer.compute.embeddings import make_whole
from esci_tournament.deployments.scorer.compute.fleet import Fleets
from esci_tournament.deployments.scorer.compute.loading import Job, load_members
from esci_tournament.deployments.scorer.compute.pairs import Pairs
from esci_tournament.registry.plugins import distribution_of
from esci_tournament.registry.settings import Settings, read_settings
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks import families
from esci_tournament.tasks.data.dataset import Dataset
from esci_tournament.tasks.data.load import load_esci
from esci_tournament.tasks.data.store import save_dataset
from esci_tournament.tasks.ensemble.ensemble import member_folders
from esci_tournament.tasks.families.loading import class_of
from esci_tournament.tasks.families.protocol import REBUILT, WHOLE
from tests.harness import clean_environment, new_home, warm

pytestmark = pytest.mark.slow

HERE, THERE = "graph_network", "graph_plugin"
CANDIDATES = """
[[candidate]]
name = "clicks"
family = "graph_plugin"
architecture = "graphsage"
relation = "clicks"
recipe = { epochs = 2, hidden_size = 16, text_dimensions = 16, layers = 1 }

[[candidate]]
name = "several"
family = "graph_plugin"
architecture = "rgcn"
relation = ["clicks", "same_session"]
recipe = { epochs = 1, hidden_size = 16, text_dimensions = 16, layers = 1 }
"""


def install(folder: Path) -> None:
    """Move the family into a distribution of its own and lay that into a folder as an installer would."""
    (source,) = families.__path__
    shutil.copytree(Path(source, HERE), folder / THERE, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (folder / THERE).rglob("*.py"):
        code = path.read_text(encoding="utf-8").replace(f"esci_tournament.tasks.families.{HERE}", THERE)
        path.write_text(code.replace(f'"{HERE}"', f'"{THERE}"'), encoding="utf-8")
    info = folder / f"{THERE}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: graph-plugin\nVersion: 1.0\n", encoding="utf-8")
    entry = f"[esci_tournament.families]\n{THERE} = {THERE}:FAMILY\n"
    (info / "entry_points.txt").write_text(entry, encoding="utf-8")


@dataclass(frozen=True)
class Place:
    """A home with a champion of the plugged-in family alone; folder: a copy of what serves."""

    document: dict[str, Any]
    folder: Path
    dataset: Dataset
    products: Path


@pytest.fixture(scope="module")
def place(tiny_world: Path, tiny_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("plugged-in")
    site = root / "site"
    install(site)
    (root / "candidates.toml").write_text(CANDIDATES, encoding="utf-8")
    settings = 'minimum_test_queries = 10\nmust_keep = ["clicks", "several"]\n'
    (root / "tournament.toml").write_text(settings, encoding="utf-8")
    new_home(root / "home")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        patch.setenv("PYTHONPATH", str(site))
        arguments = ["run", "--home", "home", "--data", tiny_world, "--candidates", "candidates.toml", "--json"]
        done = warm(arguments, root, clean_environment(PYTHONPATH=site))
        assert done.code == 0, done.err
        models = Workspace(read_settings(home=root / "home")).models
        champion = models.champion()
        assert champion is not None
        shutil.copytree(models.download(champion), root / "ensemble")
        (root / "data").mkdir()
        save_dataset(tiny_dataset, root / "data")
        yield Place(done.document, root / "ensemble", tiny_dataset, root / "data" / "products.arrow")
    for name in [name for name in sys.modules if name.split(".")[0] == THERE]:
        del sys.modules[name]


@pytest.fixture
def fleets(tmp_path: Path, place: Place) -> Iterator[Fleets]:
    """What serves: one replica, forked from what has loaded the members."""
    made = Fleets(Settings(replicas=1), "cpu", tmp_path / "vectors")
    yield made
    made.close()


def job_of(place: Place, **changes: Any) -> Job:
    folder = changes.pop("folder", place.folder)
    return Job(folder, "cpu", None, 1, 1000, place.products, "data", place.folder / "vectors", **changes)


def test_it_is_trained_ranked_and_registered(place: Place) -> None:
    assert distribution_of(THERE) == "graph-plugin 1.0"
    models = {one["name"]: one for one in place.document["models"]}
    assert {one["family"] for one in models.values()} == {THERE}
    assert models["several"]["detail"] == "rgcn on clicks, same_session"
    assert {one["status"] for one in models.values()} == {"member"}
    assert sum(one["utility"] for one in models.values()) == pytest.approx(1)
    assert place.document["promoted"]


def test_its_embeddings_are_held_limited_and_mended(place: Place, tmp_path: Path) -> None:
    members = load_members(job_of(place), member_folders(place.folder), "cpu")
    assert {one.products_ahead for one in members.values()} == {len(place.dataset.products)}
    wanted = place.dataset.products["product_id"].iloc[[5, 9]].tolist()
    few = load_members(job_of(place, precomputed=2, retrieved=dict.fromkeys(wanted, 3)), members, "cpu")
    assert {one.products_ahead for one in few.values()} == {2}
    copy = tmp_path / "copy"
    shutil.copytree(place.folder, copy)
    states = next(copy.rglob("catalogue_states.npy"))
    states.write_bytes(states.read_bytes()[:-8])
    assert sorted(make_whole(copy).values()) == [REBUILT, WHOLE]


def test_it_is_served_by_forked_replicas_and_refreshed(
    place: Place, fleets: Fleets, grown_world: Path, tmp_path: Path
) -> None:
    job = job_of(place)
    assert job.forkable() == list(job.folders)
    expected = load_members(job, job.folders, "cpu")
    page = Pairs("red lamp", "us", [Text(f"P{row}", f"Velo lamp {row}", "", "", "", "") for row in range(40)])
    assert served(fleets, place, page) == {
        name: pytest.approx(one.predict_proba(*page.frames), abs=1e-6) for name, one in expected.items()
    }

    newer = load_esci(grown_world)
    (tmp_path / "newer").mkdir()
    save_dataset(newer, tmp_path / "newer")
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    changed = fleets.refresh(place.folder, tmp_path / "newer", fresh)
    assert set(changed) == set(job.folders)
    assert min(changed.values()) >= len(newer.products) - len(place.dataset.products)
    for folder in member_folders(fresh).values():
        assert class_of(folder).__module__ == f"{THERE}.model"
        model = class_of(folder).load(folder)
        assert model.products_ahead == len(newer.products)
        pairs = pd.DataFrame({"query": "red lamp", "locale": "us", "product": np.arange(20, dtype=np.int32)})
        assert np.isfinite(model.predict_proba(pairs, newer.products)).all()


def served(fleets: Fleets, place: Place, page: Pairs) -> dict[str, Any]:
    """Return every member's answers, computed by a process."""
    fleet = fleets.fleet(place.folder, place.products, "data", {})

    async def ask() -> dict[str, Any]:
        replica = await fleet.replica(lambda *_: None)
        answers: dict[str, Any] = {}
        for name in member_folders(place.folder):
            come: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            replica.send(name, [(page, 0, len(page.texts))], lambda found, seconds, come=come: come.set_result(found))
            (answers[name],) = await asyncio.wait_for(come, 60)
        assert await fleet.embed() == {}  # it has no vectors besides the model
        replica.end()
        return answers

    try:
        return asyncio.run(ask())
    finally:
        fleet.close()
