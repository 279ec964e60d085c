"""The workspace creates and opens nothing before it is needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from esci_tournament.registry.errors import StoreError
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.workspace import Workspace


def test_making_a_workspace_writes_nothing(tmp_path: Path) -> None:
    Workspace(Settings(home=tmp_path / "home"))
    assert not list(tmp_path.iterdir())


def test_stores_lie_in_the_home_and_are_opened_once(tmp_path: Path) -> None:
    workspace = Workspace(Settings(home=tmp_path / "home"))
    assert workspace.stages is workspace.stages
    assert workspace.scores is workspace.scores
    assert workspace.stages.root == tmp_path / "home" / "stages"
    assert workspace.scores.root == tmp_path / "home" / "scores"


def test_the_ledger_stands_where_the_settings_say(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.db"
    workspace = Workspace(Settings(home=tmp_path / "home", ledger_url=f"sqlite:///{elsewhere}"))
    with workspace.ledger as ledger:
        ledger.record_data_version("v1")
    assert elsewhere.is_file()
    assert not (tmp_path / "home" / "ledger.db").exists()


def test_the_ledger_makes_the_home(tmp_path: Path) -> None:
    workspace = Workspace(Settings(home=tmp_path / "deep" / "home"))
    with workspace.ledger:
        assert (tmp_path / "deep" / "home" / "ledger.db").is_file()


def test_a_folder_is_made_with_its_parents_and_found_again(tmp_path: Path) -> None:
    workspace = Workspace(Settings(home=tmp_path / "home"))
    place = workspace.folder("tournaments", "t-1")
    assert place.is_dir()
    assert workspace.folder("tournaments", "t-1") == place == tmp_path / "home" / "tournaments" / "t-1"


def test_a_home_below_a_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    workspace = Workspace(Settings(home=tmp_path / "file" / "home"))
    with pytest.raises(StoreError, match=r"file/home/stages.*--home"):
        _ = workspace.stages
