"""A child process imports our modules, whatever files the current folder has."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from esci_tournament.registry.processes import module_path, python_module


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
