"""Newer data for whoever serves: named after it passed its checks, and nothing else is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.live_data import EVENT
from esci_tournament.tasks.data.dataset import Dataset
from tests.harness import clean_environment, warm

pytestmark = pytest.mark.slow


def test_data_that_passed_its_checks_is_named_for_scorers_and_no_tournament_is_held(
    tiny_world: Path, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    command = ["champion", "refresh", "--data", tiny_world, "--home", home, "--json"]
    answer = warm(command, tmp_path, clean_environment())
    assert answer.code == 0, answer.err
    with Ledger.open(f"sqlite:///{home / 'ledger.db'}") as ledger:
        assert [event.subject for event in ledger.events(kind=EVENT)] == [tiny_dataset.version]
        assert ledger.tournaments() == []
    assert {path.name.partition("-")[0] for path in (home / "stages").iterdir() if path.is_dir()} == {
        "load",
        "validate",
    }
