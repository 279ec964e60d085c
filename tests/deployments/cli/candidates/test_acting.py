"""`tournament candidates withdraw`, `cancel` and `retry`, while `tournament run` works in another process."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from tests.harness import clean_environment, new_home, start_warm, until

pytestmark = pytest.mark.slow

SPECS = """
[[candidate]]
name = "quick"
family = "graph_network"
architecture = "graphsage"
recipe = { epochs = 1, hidden_size = 16, text_dimensions = 16, layers = 1 }

[[candidate]]
name = "endless"
family = "language_model"
architecture = "bert"
recipe = { epochs = 1000, max_length = 16, hidden_size = 16, heads = 2, layers = 1, vocabulary = 400 }
"""
STOPS_S = 30.0  # far more than the second or two that it takes


@dataclass
class Bench:
    """A home, a tournament that can be started in it, and commands beside it."""

    folder: Path
    home: Path
    data: Path
    tournament: Callable[..., Any]
    runs: int = 0

    def start(self, *more: str) -> BaseProcess:
        self.runs += 1
        arguments = ["run", "--home", str(self.home), "--data", str(self.data), "--workers", "2", *more]
        out, err = (self.folder / f"{name}-{self.runs}" for name in ("out", "err"))
        return start_warm(arguments, self.folder, clean_environment(), out, err)

    def say(self, *words: object, code: int = 0) -> Any:
        answer = self.tournament("candidates", *words, "--home", self.home, "--json", cwd=self.folder)
        assert answer.code == code, answer.err
        return answer.document

    def row(self, candidate: str) -> dict[str, Any]:
        return next((row for row in self.say() if row["candidate"] == candidate), {"state": ""})

    def trains(self, process: BaseProcess) -> dict[str, Any]:
        """Wait until the endless one trains, and the other is done."""

        def begun() -> Any:
            assert process.exitcode is None, (self.folder / f"err-{self.runs}").read_text()
            row = self.row("endless/1")
            return row if row["state"] == "training" and "epoch" in row["doing"] else None

        return dict(until(begun, 120, "it trains"))


@pytest.fixture
def bench(tiny_world: Path, tournament: Any, tmp_path: Path) -> Bench:
    (tmp_path / "tournament.toml").write_text("minimum_test_queries = 10\n", encoding="utf-8")
    (tmp_path / "candidates.toml").write_text(SPECS, encoding="utf-8")
    return Bench(tmp_path, new_home(tmp_path / "home"), tiny_world, tournament)


def test_a_killed_run_trains_nobody_a_cancelled_candidate_stops_and_a_cancelled_tournament_ends(bench: Bench) -> None:
    first = bench.start("--candidates", "candidates.toml")
    row = bench.trains(first)
    assert 0 <= row["progress"] < 0.9
    assert 0 < row["tournament_progress"] < 1
    first.kill()
    first.join()
    assert first.exitcode == -signal.SIGKILL
    killed = bench.row("endless/1")
    assert (killed["state"], killed["progress"], killed["doing"]) == ("interrupted", None, "")
    assert "the same command continues it" in killed["reason"]
    nothing = bench.say("cancel", "endless/1", "--reason", "a test", code=2)
    assert "no process trains it" in nothing["error"]

    second = bench.start("--candidates", "candidates.toml", "--json")
    tournament = bench.trains(second)["tournament"]
    busy = bench.say("withdraw", "endless", "--reason", "a test", code=2)
    assert "tournament candidates cancel endless/1" in busy["error"]
    made = bench.say("cancel", "endless", "--reason", "it diverges")
    assert (made["changed"], made["tournament"]) == (True, tournament)
    second.join(STOPS_S + 60)  # the rest of the tournament is held without it
    assert second.exitcode == 0, (bench.folder / "err-2").read_text()
    log = bench.home / "logs" / "endless-1.log"
    assert bench.row("quick/1")["state"] == "member"
    gone = bench.row("endless/1")
    assert gone["state"] == "withdrawn"
    assert gone["reason"].startswith("cancelled by ")
    assert gone["reason"].endswith(": it diverges")
    told = bench.say("show", "endless/1")
    assert [one["event"] for one in told["events"]] == [
        *("registered", "entered", "cancelled", "failed", "tournament finished"),
    ]
    assert told["log"]["path"] == str(log)
    assert bench.say("cancel", "endless/1", "--reason", "again")["changed"] is False
    member = bench.say("withdraw", "quick", "--reason", "a test", code=2)
    assert "is a member of the champion" in member["error"]

    nobody = bench.start()
    nobody.join(120)
    assert bench.row("endless/1")["state"] == "withdrawn", "it does not compete again by itself"
    assert bench.say("retry", "endless") == [{"candidate": "endless/1", "queued": True, "reason": ""}]
    assert bench.row("endless/1")["state"] == "registered"
    third = bench.start("--json")
    held = bench.trains(third)["tournament"]
    bench.say("cancel", held, "--reason", "the data is old")
    third.join(STOPS_S)
    assert third.exitcode == 15
    failed = bench.row("endless/1")
    assert failed["state"] == "failed"
    assert "the data is old" in failed["reason"]
    over = bench.say("cancel", held, "--reason", "again", code=2)
    assert "no process works on it" in over["error"]
    assert bench.say("withdraw", "endless", "--reason", "enough")["changed"]
    assert bench.say("withdraw", "endless", "--reason", "once more")["changed"] is False


def test_an_unknown_name_is_answered_with_those_that_are_most_alike(bench: Bench) -> None:
    answer = bench.tournament("register", "candidates.toml", "--home", bench.home, cwd=bench.folder)
    assert answer.code == 0, answer.err
    assert "did you mean quick" in bench.say("show", "quik", code=10)["error"]
    assert "did you mean endless/1" in bench.say("show", "endless/7", code=10)["error"]
    assert bench.say("show", "quick")["candidate"] == "quick/1"
    bench.say("withdraw", "quick", "--reason", "a test")
    again = bench.tournament("register", "candidates.toml", "--home", bench.home, cwd=bench.folder)
    assert again.code == 0
    assert bench.row("quick/1")["state"] == "registered", "registered anew, it competes"
