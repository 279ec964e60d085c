"""Local copies of champions: whole or absent, the newest few, and the one that served last."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from esci_tournament.deployments.scorer.champion import Card
from esci_tournament.deployments.scorer.copies import KEPT, Copies
from esci_tournament.registry.errors import IntegrityError, NotFoundError, StoreError
from esci_tournament.registry.models import Models
from esci_tournament.registry.packaging import package_ensemble

NAME = "esci-ensemble"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, empty_mlflow: bytes) -> Models:
    """A real MLflow with two ensembles, folders of one file each; the files of the second are lost."""
    home = tmp_path_factory.mktemp("home")
    (home / "mlflow.db").write_bytes(empty_mlflow)
    made = Models(f"sqlite:///{home / 'mlflow.db'}", home)
    ensemble = tmp_path_factory.mktemp("ensemble")
    (ensemble / "ensemble.json").write_text("as it came", encoding="utf-8")
    for tournament in ("t-1", "t-2"):
        version = made.register_ensemble(ensemble, ["a/1"], tournament)
    shutil.rmtree(made.download(version))
    return made


@pytest.fixture
def copies(tmp_path: Path) -> Copies:
    return Copies(tmp_path / "copies")


def card(version: int = 1) -> Card:
    return Card(NAME, version, f"t-{version}", "data", ("a/1",))


def refreshed(copies: Copies, base: Card, data: str, changed: int = 0) -> Card:
    """Make a copy that knows newer data, whose one file names it."""

    def write(old: Path, new: Path) -> dict[str, int]:
        shutil.copytree(old, new, dirs_exist_ok=True)
        (new / "data").write_text(data, encoding="utf-8")
        return {"a/1": changed}

    return copies.refresh(base, data, write)


def content(found: tuple[Path, Card] | None) -> dict[str, str]:
    assert found is not None
    return {path.name: path.read_text(encoding="utf-8") for path in found[0].iterdir()}


def names(copies: Copies) -> set[str]:
    return {path.name for path in copies.folder.iterdir() if path.is_dir()}


def test_a_copy_has_the_files_of_the_version(models: Models, copies: Copies) -> None:
    assert copies.find(NAME, 1) is None
    folder = copies.fetch(models, card())
    found = copies.find(NAME, 1)
    assert found == (folder, card())
    assert content(found) == {"ensemble.json": "as it came"}
    assert names(copies) == {f"{NAME}-1"}


def test_what_mlflow_cannot_give_leaves_no_half_copy(models: Models, copies: Copies) -> None:
    with pytest.raises(NotFoundError):
        copies.fetch(models, card(7))
    with pytest.raises(StoreError):
        copies.fetch(models, card(2))
    assert names(copies) == set()


def test_a_copy_that_knows_newer_data_stands_beside_the_one_it_came_from(models: Models, copies: Copies) -> None:
    copies.fetch(models, card())
    fresh = refreshed(copies, card(), "newer", changed=3)
    assert fresh == replace(card(), data_version="newer", refreshed=True, edges="newer")
    assert content(copies.find(NAME, 1, "newer")) == {"ensemble.json": "as it came", "data": "newer"}
    assert content(copies.find(NAME, 1)) == {"ensemble.json": "as it came"}
    # No member has other edges: labels that are kept stand
    assert refreshed(copies, card(), "newest").edges == ""


def test_a_refresh_that_fails_leaves_the_copy_there_is_and_no_other(models: Models, copies: Copies) -> None:
    def fail(old: Path, new: Path) -> dict[str, int]:
        (new / "half").touch()
        raise StoreError("no edges")

    copies.fetch(models, card())
    with pytest.raises(StoreError, match="no edges"):
        copies.refresh(card(), "newer", fail)
    assert names(copies) == {f"{NAME}-1"}
    with pytest.raises(StoreError, match=r"the copy of esci-ensemble/2 is gone"):
        refreshed(copies, card(2), "newer")


def test_the_copy_that_served_last_is_found_by_the_next_process(models: Models, copies: Copies) -> None:
    assert copies.last_good() is None
    copies.fetch(models, card())
    fresh = refreshed(copies, card(), "newer")
    copies.served(fresh)
    again = Copies(copies.folder)
    assert again.last_good() == again.find(NAME, 1, "newer")
    again.discard(fresh)
    assert again.last_good() is None
    assert again.find(NAME, 1) is not None


def test_the_newest_few_are_kept(models: Models, copies: Copies) -> None:
    copies.fetch(models, card())
    made = [refreshed(copies, card(), f"data-{number}") for number in range(KEPT + 1)]
    places = {one.data_version: copies.folder / f"{NAME}-1-with-{one.data_version}" for one in made}
    for age, place in enumerate([copies.folder / f"{NAME}-1", *places.values()]):
        os.utime(place, (1000 + age, 1000 + age))
    copies.served(made[0])  # the oldest of them serves, and so it is the newest now
    assert names(copies) == {places[one.data_version].name for one in (made[0], *made[-KEPT + 1 :])}


@pytest.mark.parametrize("damage", ["", "{}", "[]", '{"name": "esci-ensemble"}'])
def test_a_copy_with_a_damaged_card_is_absent(models: Models, copies: Copies, damage: str) -> None:
    copies.fetch(models, card())
    copies.served(card())
    (copies.folder / f"{NAME}-1" / "card.json").write_text(damage, encoding="utf-8")
    assert copies.find(NAME, 1) is None
    assert copies.last_good() is None
    copies.fetch(models, card())
    assert copies.last_good() is not None


# What is compared


@pytest.fixture
def approved(models: Models, tmp_path: Path) -> tuple[Copies, Card, Path]:
    """Copies that know what was approved, the card of a champion, and the folder of its files in MLflow."""
    folder = tmp_path / "ensemble"
    for name in ("ensemble.json", "aggregator/trees", "members/a-1/head.safetensors", "members/a-1/ahead.npy"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name, encoding="utf-8")
    manifest = package_ensemble(folder, tmp_path / "package", {})
    version = models.register_ensemble(folder, ["a/1"], f"t-{tmp_path.name}", package=tmp_path / "package")
    made = Card(NAME, version.version, version.tournament, "data", ("a/1",), manifest=manifest.digest)
    return Copies(tmp_path / "copies", lambda card: manifest), made, models.download(version)


def write_also(name: str, content: str) -> Callable[[Path, Path], dict[str, int]]:
    def write(old: Path, new: Path) -> dict[str, int]:
        shutil.copytree(old, new, dirs_exist_ok=True)
        (new / name).write_text(content, encoding="utf-8")
        return {"a/1": 1}

    return write


def test_a_copy_is_compared_when_it_is_made_and_when_it_is_opened(models: Models, approved: Any) -> None:
    """A1."""
    copies, made, stored = approved
    weights = "members/a-1/head.safetensors"
    (stored / weights).write_text("others", encoding="utf-8")
    with pytest.raises(IntegrityError, match="in MLflow differs from manifest"):
        copies.fetch(models, made)
    assert names(copies) == set()
    (stored / weights).write_text(weights, encoding="utf-8")
    folder = copies.fetch(models, made)
    assert copies.checked(made) == folder
    (folder / weights).write_text("others", encoding="utf-8")
    with pytest.raises(IntegrityError, match="the copy of"):
        copies.checked(made)
    with pytest.raises(IntegrityError, match="the copy of"):
        copies.refresh(made, "newer", write_also("x", "x"))
    assert names(copies) == {folder.parents[1].name}
    with pytest.raises(StoreError, match="is gone"):
        copies.checked(replace(made, manifest="0" * 64))
    with pytest.raises(IntegrityError, match="the ledger does not have manifest"):
        copies.fetch(models, replace(made, manifest="0" * 64))


def test_a_refreshed_copy_has_the_approved_weights_and_a_manifest_of_its_own(models: Models, approved: Any) -> None:
    copies, made, _ = approved
    copies.fetch(models, made)
    fresh = copies.refresh(made, "newer", write_also("members/a-1/ahead.npy", "newer"))
    folder = copies.checked(fresh)
    assert (folder / "members/a-1/ahead.npy").read_text() == "newer"
    assert Card.from_json(fresh.to_json()) == fresh
    (folder / "members/a-1/ahead.npy").unlink()  # a hard link in other copies, so it is not written into
    (folder / "members/a-1/ahead.npy").write_text("worse", encoding="utf-8")
    with pytest.raises(IntegrityError, match=r"ahead\.npy has another content"):
        copies.checked(fresh)


@pytest.mark.parametrize("name", ["ensemble.json", "aggregator/trees", "members/a-1/head.safetensors", "more"])
def test_a_refresh_changes_nothing_but_what_members_compute_ahead(models: Models, approved: Any, name: str) -> None:
    copies, made, _ = approved
    place = copies.fetch(models, made).parents[1]
    with pytest.raises(IntegrityError, match="is not the approved one"):
        copies.refresh(made, "newer", write_also(name, "changed"))
    assert names(copies) == {place.name}
