"""kill -9 at any stage, then the same command again: it goes on and ends with the same champion."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SETTINGS = "minimum_test_queries = 10\n"  # as in the undisturbed run: other settings ask another question

# Killed when progress says that this begins; each run continues the one that was killed before.
STAGES = (
    "validate",
    "enter",
    "sage-impressions",
    "profile",
    "build the challenger",
    "judge",
    "report",
    "register the challenger",
    "promote",
)


def kill_at(stage: str, arguments: list[str], cwd: Path, environment: dict[str, str]) -> None:
    """Start the command and kill it with signal 9 as soon as the stage begins."""
    process = subprocess.Popen(
        [sys.executable, "-m", "esci_tournament.deployments.cli", *arguments],
        cwd=cwd,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if line.startswith(stage + " "):
            os.kill(process.pid, signal.SIGKILL)
            break
    process.stderr.close()
    assert process.wait() == -signal.SIGKILL, f"{stage!r} never began:\n{''.join(seen)}"


def facts(document: dict) -> dict:
    """Return what must be the same: members, their utilities, every metric; times and paths are not."""
    return {
        "members": [(model["name"], model["status"], model["utility"], model["test"]) for model in document["models"]],
        "ensemble": document["ensemble"],
        "by_locale": document["ensemble_by_locale"],
        "confusion": document["confusion"],
        "promoted": document["promoted"],
        "version": document["ensemble_version"],
    }


def test_killed_at_every_stage_it_ends_with_the_champion_of_an_undisturbed_run(
    held, tournament, tmp_path, clean_environment
):
    home = tmp_path / "home"
    (tmp_path / "tournament.toml").write_text(SETTINGS, encoding="utf-8")
    arguments = ["run", "--home", str(home), "--data", str(held.data), "--candidates", str(held.specs), "--json"]
    for stage in STAGES:
        kill_at(stage, arguments, tmp_path, clean_environment)
    answer = tournament(*arguments, cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert facts(answer.document) == facts(held.document)
    history = tournament("champion", "history", "--home", home, "--json").document
    assert [row["version"] for row in history] == [1]
    again = tournament(*arguments, cwd=tmp_path).document
    assert again["unchanged"]
