"""MLflow's database in a home that was moved or copied."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from esci_tournament.registry.errors import StoreError
from esci_tournament.registry.models import Models
from esci_tournament.registry.relocation import local_path, settle
from esci_tournament.tasks.families.language_model.spec import LanguageModelSpec

SPEC = LanguageModelSpec(name="minilm", architecture="bert")
NEWER = LanguageModelSpec(name="minilm", architecture="bert", seed=7)


def opened(home: Path) -> Models:
    return Models(f"sqlite:///{str(home / 'mlflow.db').replace('%', '%25')}", home)


def places(home: Path) -> set[Path | None]:
    """Return where MLflow looks for the artifacts of all runs and versions of a home, read past this product."""
    client = MlflowClient(*[f"sqlite:///{str(home / 'mlflow.db').replace('%', '%25')}"] * 2)
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    sources = [version.source for version in client.search_model_versions()]
    return {local_path(value) for value in [run.info.artifact_uri for run in runs] + sources}


@pytest.mark.parametrize("name", ["moved", "100% of it #2"])
def test_a_moved_home_is_whole_and_goes_on(home: Path, models: Models, name: str) -> None:
    models.register_candidate(SPEC)
    moved = home.rename(home.with_name(name))
    again = opened(moved)
    assert again.register_candidate(NEWER).id == "minilm/2"
    assert not home.exists(), "nothing is written to where it stood"
    assert all(place and place.is_relative_to(moved) and place.is_dir() for place in places(moved))
    back = moved.rename(home)
    assert settle(back / "mlflow.db", back) == [moved]
    assert all(place and place.is_dir() for place in places(back))


def test_a_copy_and_its_original_are_independent_while_both_stand(home: Path, models: Models) -> None:
    models.register_candidate(SPEC)
    copy = Path(shutil.copytree(home, home.with_name("copy")))
    opened(copy).register_candidate(NEWER)
    assert all(place and place.is_relative_to(copy) and place.is_dir() for place in places(copy))
    assert settle(home / "mlflow.db", home) == []
    shutil.rmtree(home)
    assert len(places(copy)) == 4
    assert all(place and place.is_dir() for place in places(copy))


def test_artifacts_that_are_elsewhere_on_purpose_stay_there(home: Path, models: Models) -> None:
    models.register_candidate(SPEC)
    bare = Path(shutil.copytree(home, home.with_name("bare"), ignore=shutil.ignore_patterns("mlartifacts")))
    assert settle(bare / "mlflow.db", bare) == [], "the database alone was copied: its artifacts are in the other home"
    alias = home.with_name("alias")
    alias.symlink_to(home)
    assert settle(alias / "mlflow.db", alias) == []
    assert settle(home / "mlflow.db", bare) == [], "the database of another home"
    shutil.rmtree(bare)
    bare.mkdir()
    shutil.copy(home / "mlflow.db", bare)
    home.rename(home.with_name("not-mounted"))
    home.mkdir()  # the folder that a disk is mounted on
    assert settle(bare / "mlflow.db", bare) == []


def test_addresses_are_all_rewritten_or_none_is(home: Path, models: Models) -> None:
    models.register_candidate(SPEC)
    moved = home.rename(home.with_name("moved"))
    with closing(sqlite3.connect(moved / "mlflow.db")) as connection:
        connection.execute(
            "CREATE TRIGGER no BEFORE UPDATE ON model_versions BEGIN SELECT RAISE(ABORT, 'disk I/O error'); END"
        )
        connection.commit()
    with pytest.raises(StoreError, match=r"was moved here from .*home.*disk I/O error.*run the same command again"):
        opened(moved).candidates()
    assert all(place and place.is_relative_to(home) for place in places(moved))


def test_what_is_no_database_is_left_to_mlflow(tmp_path: Path) -> None:
    assert settle(tmp_path / "mlflow.db", tmp_path) == []
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 100)
    assert settle(tmp_path / "mlflow.db", tmp_path) == []
    with pytest.raises(StoreError, match="cannot be opened"):
        opened(tmp_path).candidates()
