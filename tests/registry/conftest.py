"""Fixtures for the registry's tests: a ledger, an MLflow database, a way to fork."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.models import Models
from esci_tournament.registry.records import Decision

RunScript = Callable[..., subprocess.CompletedProcess[str]]


def approved(
    ledger: Ledger,
    ensemble: str,
    tournament: str,
    version: int,
    against: int = 0,
    payload: Mapping[str, Any] | None = None,
) -> Decision:
    """Put on record that a tournament, which has started, built a version whose promotion was approved."""
    ledger.record_ensemble(tournament, ensemble, version, payload)
    verdict = ledger.record_verdict(tournament, "promote", {"gain": 0.01}, against)
    return ledger.record_decision(verdict.id, "approve", "reviewer", "it is better")


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    """An open, empty ledger."""
    with Ledger.open(ledger_url) as opened:
        yield opened


@pytest.fixture
def home(tmp_path: Path, mlflow_template: Path) -> Path:
    """A home folder whose MLflow database has its schema."""
    folder = tmp_path / "home"
    folder.mkdir()
    shutil.copy(mlflow_template, folder / "mlflow.db")
    return folder


@pytest.fixture
def models(home: Path) -> Models:
    """The model registry of `home`."""
    return Models(f"sqlite:///{home / 'mlflow.db'}", home)


@pytest.fixture
def run_script(tmp_path: Path) -> RunScript:
    """Run a Python script in a fresh process, in an empty current folder; more processes are forked inside it."""

    def run(script: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
            cwd=elsewhere,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode in (0, -9), done.stderr
        return done

    return run
