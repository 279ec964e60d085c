"""`tournament review`: a tournament that waits for review is decided on the command line, on a tiny world."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pyotp
import pytest
from mlflow import MlflowClient

from esci_tournament.deployments.cli import main
from tests.harness import new_home

pytestmark = pytest.mark.slow

CANDIDATE = """
[[candidate]]
name = "sage"
family = "graph_network"
architecture = "graphsage"
recipe = { epochs = 1, hidden_size = 16, text_dimensions = 16, layers = 1 }
"""
SETTINGS = 'minimum_test_queries = 10\nreview = "required"\nreviewers = ["ana", "bob"]\n'


@dataclass(frozen=True)
class Waiting:
    """A first ensemble that waits for review."""

    home: Path
    folder: Path
    document: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What a command came to."""

    code: int
    document: Any


@pytest.fixture
def own_environment() -> Iterator[None]:
    """Take back what commands put into the environment for Prefect."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(("TOURNAMENT_", "PREFECT_")):
            del os.environ[name]
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def waiting(tournament: Any, tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Waiting:
    folder = tmp_path_factory.mktemp("reviewed")
    (folder / "candidates.toml").write_text(CANDIDATE, encoding="utf-8")
    (folder / "tournament.toml").write_text(SETTINGS, encoding="utf-8")
    home = new_home(folder / "home")
    command = ["run", "--home", home, "--data", tiny_world, "--candidates", "candidates.toml", "--json"]
    answer = tournament(*command, cwd=folder)
    assert answer.code == 0, answer.err
    return Waiting(home, folder, answer.document)


def test_from_a_verdict_that_waits_to_a_champion_with_a_history(
    waiting: Waiting,
    tournament: Any,
    tiny_world: Path,
    own_environment: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    home, folder = waiting.home, waiting.folder
    monkeypatch.chdir(folder)

    def command(*arguments: object) -> Answer:
        """Run a command in this process: a dozen of their own would import for a minute."""
        capfd.readouterr()
        code = main([*map(str, arguments), "--home", str(home), "--json"])
        return Answer(code, json.loads(capfd.readouterr().out))

    assert (waiting.document["awaits_review"], waiting.document["promoted"]) == (True, False)
    assert "waits for review" in Path(waiting.document["report"]).read_text(encoding="utf-8")
    assert command("champion", "show").code == 10

    [row] = command("review", "list").document
    assert (row["state"], row["tournament"]) == ("waits", waiting.document["tournament"])
    shown = command("review", "show", row["verdict"]).document["markdown"]
    assert "Install version 1 as the first champion?" in shown
    assert "Members in: sage v1" in shown

    wrong = command("review", "approve", row["verdict"], "--reviewer", "mallory", "--reason", "mine")
    assert (wrong.code, wrong.document["kind"]) == (2, "UsageError")
    assert command("review", "approve", row["verdict"], "--reviewer", "ana", "--reason", "a start").code == 2
    enrolled = command("policy", "enrol", "ana").document["address"]
    code = pyotp.TOTP(parse_qs(urlparse(enrolled).query)["secret"][0]).now()
    decided = command(
        "review", "approve", row["tournament"], "--reviewer", "ana", "--code", code, "--reason", "a start"
    )
    assert decided.code == 0, decided.document
    assert decided.document["promoted"]
    late = command("review", "refuse", row["verdict"], "--reviewer", "bob", "--reason", "no")
    assert late.code == 9
    assert "approve by ana" in late.document["error"]
    assert command("review", "list").document == []

    # The same question again: the tournament that won by review stands, nothing is trained.
    held = ["run", "--home", home, "--data", tiny_world, "--candidates", "candidates.toml", "--json"]
    again = tournament(*held, cwd=folder).document
    assert (again["unchanged"], again["promoted"], again["awaits_review"]) == (True, True, False)
    assert again["decision"] == {"decision": "approve", "by": "ana", "reason": "a start"}

    [chapter] = command("champion", "history", "--export", folder / "history.csv").document
    assert (chapter["by"], chapter["via"], chapter["reason"]) == ("ana", "command line", "a start")
    assert (chapter["came"], chapter["tournament"]) == (["sage/1"], row["tournament"])
    assert chapter["links"] == {"Report": waiting.document["report"], "MLflow version": "models:/esci-ensemble/1"}
    with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
        [exported] = csv.DictReader(file)
    assert (exported["by"], exported["came"]) == ("ana", "sage/1")
    assert exported["link: Report"] == waiting.document["report"]
    assert command("champion", "history", "--export", folder / "history.json").code == 0
    assert json.loads((folder / "history.json").read_text(encoding="utf-8")) == [chapter]
    assert command("champion", "history", "--export", folder / "history.doc").code == 2

    # An alias moved by hand is reported, with what to do, and put back.
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}", f"sqlite:///{home / 'mlflow.db'}")
    client.delete_registered_model_alias("esci-ensemble", "champion")
    [moved] = command("champion", "show").document["drift"]
    assert "moved by hand" in moved
    assert "tournament champion restore" in moved
    assert command("champion", "restore").document == [{"alias": "champion", "was": None, "is": 1}]
    assert int(client.get_model_version_by_alias("esci-ensemble", "champion").version) == 1
    assert command("champion", "restore").document == []
