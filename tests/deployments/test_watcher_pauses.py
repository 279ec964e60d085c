"""The watcher goes on whatever a sweep meets, with pauses that grow, but never long after what it needs is back."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from esci_tournament.deployments.watcher import Watcher
from esci_tournament.flows.watch import Watch
from esci_tournament.registry.settings import read_settings


def pauses(watcher: Watcher, monkeypatch: pytest.MonkeyPatch, number: int) -> list[float]:
    """Let a watcher make some sweeps, and return the seconds that it would have waited after each."""
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == number:
            watcher.stop()

    monkeypatch.setattr(watcher._woken, "wait", wait)
    watcher.run()
    assert watcher.health()["sweeps"] == number
    return waited


def test_a_ledger_that_cannot_be_opened_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    settings = read_settings(
        home=tmp_path, ledger_url=f"sqlite:///{tmp_path}/file/ledger.db", watch_interval_s=2.0, data="data"
    )
    watcher = Watcher(settings)
    assert pauses(watcher, monkeypatch, 5) == [2.0, 8.0, 8.0, 8.0, 8.0]
    assert watcher.health()["status"] == "degraded"


def test_a_disk_that_fails_below_a_sweep_does_not_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_mlflow: bytes
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Watch, "_take_in", fail)
    monkeypatch.setattr(Watch, "_verify_ledger", fail)
    (tmp_path / "mlflow.db").write_bytes(empty_mlflow)
    watcher = Watcher(read_settings(home=tmp_path, watch_interval_s=20.0))
    assert pauses(watcher, monkeypatch, 4) == [20.0, 60.0, 60.0, 60.0]
    assert sum("No space left on device" in words for words in watcher.health()["errors"]) == 2
