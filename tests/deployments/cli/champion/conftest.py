"""A home with three approved versions of the ensemble, of which the first two were promoted."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from esci_tournament.deployments.cli import main
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.models import Models
from esci_tournament.registry.promotion import promote
from esci_tournament.registry.settings import read_settings
from esci_tournament.registry.workspace import Workspace


@dataclass(frozen=True)
class Said:
    """What a command came to."""

    code: int
    document: Any
    err: str


Command = Callable[..., Said]


def verdict_of(champion: float | None, challenger: float) -> dict[str, Any]:
    """Return the payload of a verdict with one metric."""
    row = {"scope": "all", "metric": "macro_f1", "challenger": challenger, "champion": champion}
    return {"metrics": [row], "reason": "it is better", "checks": []}


@pytest.fixture(scope="session")
def three_versions(mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home, made once; it is copied for each test."""
    home, folder = tmp_path_factory.mktemp("three") / "home", tmp_path_factory.mktemp("files")
    home.mkdir()
    (folder / "a").write_text("x")
    shutil.copy(mlflow_template, home / "mlflow.db")
    models = Models(f"sqlite:///{home / 'mlflow.db'}", home)
    with Ledger.open(f"sqlite:///{home / 'ledger.db'}") as ledger:
        ledger.record_data_version("data-1")
        for number, (against, champion, challenger) in enumerate(((0, None, 0.5), (1, 0.51, 0.6), (1, 0.51, 0.7)), 1):
            facts = {"against": against, "champion": 1 if against else None}
            ledger.start_tournament(f"t{number}", "data-1", payload=facts)
            models.register_ensemble(folder, [f"m{number}/1", "all/1"], f"t{number}")
            costs = {f"m{number}/1": [100.0, 2.5, "cpu"], "all/1": [50.0, 1.0, "cpu"]}
            content = {"members": [f"m{number}/1", "all/1"], "costs": costs, "data": "data-1"}
            ledger.record_ensemble(f"t{number}", "esci-ensemble", number, content)
            verdict = ledger.record_verdict(f"t{number}", "promote", verdict_of(champion, challenger), against)
            decision = ledger.record_decision(verdict.id, "approve", "ann", f"better {number}")
            if number < 3:
                promote(ledger, models, models.ensemble(number), decision, against)
            ledger.finish_tournament(f"t{number}")
    return home


@pytest.fixture
def versions(three_versions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """The home's stores. Version 3 was approved, and the champion had changed by then."""
    for name in os.environ:
        if name.startswith(("TOURNAMENT_", "PREFECT_", "MLFLOW_")):
            monkeypatch.delenv(name)
    shutil.copytree(three_versions, tmp_path / "home")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tournament.toml").write_text('home = "home"\n')
    workspace = Workspace(read_settings())
    yield workspace
    workspace.ledger.close()


@pytest.fixture
def champion(versions: Workspace, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run `tournament champion` in this process."""

    def run(*words: object) -> Said:
        capfd.readouterr()
        code = main(["champion", *map(str, words), "--json"])
        out, err = capfd.readouterr()
        return Said(code, json.loads(out), err)

    return run
