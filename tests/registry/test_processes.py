"""A child process imports our modules, whatever files the current folder has."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from esci_tournament.registry.processes import module_path, patient_threads, python_module


def test_packages_of_the_current_folder_are_not_taken_for_ours(tmp_path: Path) -> None:
    for package in ("tasks", "registry", "tasks/candidates"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise SystemExit('somebody else is here')\n")
    done = subprocess.run(
        python_module("esci_tournament.tasks.candidates.worker", str(tmp_path / "no-job.json")),
        cwd=tmp_path,
        env=os.environ | module_path(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "somebody else" not in done.stderr
    assert "no-job.json" in done.stderr  # ours, looking for its job


def test_threads_wait_as_the_user_says_and_patiently_where_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    assert patient_threads() == {"GOMP_SPINCOUNT": "10000"}
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert patient_threads() == {}
