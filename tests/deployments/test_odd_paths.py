"""Homes and data folders may be called anything that the file system takes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from esci_tournament.deployments.stack.access import DATABASE, database_variables
from esci_tournament.registry.addresses import sqlite_file
from esci_tournament.registry.errors import StoreError
from esci_tournament.registry.files import make_home
from esci_tournament.registry.locks import tournament_lock
from esci_tournament.registry.settings import Settings, read_settings
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.data.dataset import Dataset
from esci_tournament.tasks.data.load import load_esci

ALL = "50%25 off? #日本 é;'\"[x]{y}"
NAMES = (ALL, *(pytest.param(one, marks=pytest.mark.slow) for one in ("100%", "a%20b", "a#b", "what?x=1", "a@b:c")))


@pytest.mark.parametrize("name", NAMES)
def test_stores_are_in_the_home_whatever_it_is_called(name: str, tmp_path: Path) -> None:
    """Percent signs and question marks mean something in the addresses of databases."""
    home = tmp_path / "base" / name
    workspace = Workspace(Settings(home=home))
    assert sqlite_file(workspace.settings.ledger_address) == home / "ledger.db"
    assert workspace.ledger.events() == []
    tracking = workspace.models._tracking
    run = tracking.run_with("tournaments", "a run", {"a": "tag"})
    (tmp_path / "note.txt").write_text("kept")
    tracking.client.log_artifact(run.info.run_id, str(tmp_path / "note.txt"), "place")
    tracking.sync_artifacts(run.info.run_id, "place")
    assert [one.read_text() for one in home.rglob("note.txt")] == ["kept"]
    fetched = mlflow.artifacts.download_artifacts(
        run_id=run.info.run_id, artifact_path="place/note.txt", tracking_uri=workspace.settings.tracking_uri
    )
    assert Path(fetched).read_text() == "kept"
    # MLflow makes an empty folder under the name that a percent sign has in its address
    assert [one for one in (tmp_path / "base").rglob("*") if one.is_file() and home not in one.parents] == []
    assert {"ledger.db", "mlflow.db", "mlartifacts"} <= {one.name for one in home.iterdir()}


def test_an_address_of_earlier_releases_is_the_same(tmp_path: Path) -> None:
    for name in ("home", "a b", "日本", "a#b"):
        assert Settings(home=tmp_path / name).ledger_address == f"sqlite:///{tmp_path / name}/ledger.db"


def test_an_address_that_is_said_is_read_as_sqlalchemy_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here := tmp_path / "50%25").mkdir()
    monkeypatch.chdir(here)
    said = read_settings(ledger_url="sqlite:///a%20b.db?timeout=3").ledger_address
    assert sqlite_file(said) == here / "a b.db"
    assert said.endswith("?timeout=3")


def test_prefect_is_told_its_database_where_it_would_look_elsewhere(tmp_path: Path) -> None:
    assert database_variables(tmp_path / "a b#é", {}) == {}
    assert database_variables(tmp_path / "a%20b", {DATABASE: "postgresql"}) == {}
    found = database_variables(tmp_path / "a%20b?", {})[DATABASE]
    assert found.startswith("sqlite+aiosqlite:///")
    assert sqlite_file(found) == tmp_path / "a%20b?" / "prefect" / "prefect.db"


@pytest.mark.parametrize("name", [ALL, "100%", "-a"])
def test_data_is_read_from_any_folder(
    name: str, tiny_world: Path, tiny_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_world, tmp_path / name)
    (tmp_path / "link").symlink_to(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for folder in (Path(name), Path("link")):
        assert load_esci(folder).version == tiny_dataset.version


def test_a_home_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for use in (
        lambda home: Workspace(Settings(home=home)).ledger,
        lambda home: Workspace(Settings(home=home)).models,
        lambda home: tournament_lock(home).__enter__(),
    ):
        with pytest.raises(StoreError, match=r"home .*file/home cannot be written: [NF].*; .*--home"):
            use(tmp_path / "file" / "home")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_without_the_right_to_write_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(StoreError, match="read only"):
        make_home(tmp_path)


def test_scores_of_a_file_with_a_percent_sign(tmp_path: Path, tiny_world: Path) -> None:
    from esci_tournament.deployments.pair_tables import read_table, write_table

    table = read_table(next(tiny_world.glob("*examples.parquet")))
    for name in ("50%25 off.parquet", "a#b?c.csv", "日本.tsv.gz"):
        write_table(table.slice(0, 3), tmp_path / name)
        assert pd.Series(read_table(tmp_path / name)["query"].to_pylist()).tolist() == table["query"].to_pylist()[:3]
