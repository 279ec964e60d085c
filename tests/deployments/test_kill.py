"""kill -9 at any stage, then the same command again: it continues and ends with the same champion."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.harness import COMMAND, clean_environment, new_home, start_warm

pytestmark = pytest.mark.slow

SETTINGS = "minimum_test_queries = 10\n"  # as in the undisturbed run: other settings ask another question

# Killed when progress says that this begins; each run continues the one that was killed before.
STAGES = (
    "validate",
    "enter",
    "sage-impressions/1",
    "profile",
    "build the challenger",
    "judge",
    "report",
    "register the challenger",
    "promote",
)


# Killed as the whole process that a user starts: with imports, and with Prefect's embedded server. The others are
# forked after the imports, which come before the first stage and are the same for all.
FRESH = ("sage-impressions/1",)


def kill_at(stage: str, lines: Iterable[str], kill: Callable[[], None]) -> None:
    """Kill a command with signal 9 as soon as it says that the stage begins."""
    seen = []
    for line in lines:
        seen.append(line)
        if line.startswith(stage + " "):
            kill()
            return
    raise AssertionError(f"{stage!r} never began:\n{''.join(seen)}")


def kill_fresh(stage: str, arguments: list[str], cwd: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=clean_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        kill_at(stage, process.stderr, process.kill)
    assert process.wait() == -signal.SIGKILL


def kill_warm(stage: str, arguments: list[str], cwd: Path) -> None:
    pipe = cwd / f"{stage.replace(' ', '-').replace('/', '-')}.pipe"
    os.mkfifo(pipe)
    process = start_warm(arguments, cwd, clean_environment(), cwd / "out", pipe)
    with pipe.open(encoding="utf-8") as lines:
        kill_at(stage, lines, process.kill)
    process.join()
    assert process.exitcode == -signal.SIGKILL


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


def test_killed_at_every_stage_it_ends_with_the_champion_of_an_undisturbed_run(held, tournament, tmp_path):
    home = new_home(tmp_path / "home")
    (tmp_path / "tournament.toml").write_text(SETTINGS, encoding="utf-8")
    arguments = ["run", "--home", str(home), "--data", str(held.data), "--candidates", str(held.specs), "--json"]
    for stage in STAGES:
        (kill_fresh if stage in FRESH else kill_warm)(stage, arguments, tmp_path)
    answer = tournament(*arguments, cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert facts(answer.document) == facts(held.document)
    history = tournament("champion", "history", "--home", home, "--json").document
    assert [row["version"] for row in history] == [1]
    again = tournament(*arguments, cwd=tmp_path).document
    assert again["unchanged"]
