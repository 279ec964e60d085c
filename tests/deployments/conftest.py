"""The command line as a user runs it: a process of its own, in a folder of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from esci_tournament.deployments.stack.services import api_url, services_of
from esci_tournament.deployments.stack.supervise import Supervisor
from esci_tournament.registry.settings import read_settings

# Small enough for seconds, real in every stage: one language model, two graph networks.
SPECS = """
[[candidate]]
name = "bert-tiny"
family = "language_model"
architecture = "bert"
recipe = { epochs = 2, learning_rate = 1e-3, max_length = 32, hidden_size = 32, heads = 2, layers = 1 }

[[candidate]]
name = "sage-impressions"
family = "graph_network"
architecture = "graphsage"
relation = "impressions"
recipe = { epochs = 3, hidden_size = 32, text_dimensions = 32 }

[[candidate]]
name = "gcn-clicks"
family = "graph_network"
architecture = "gcn"
relation = "clicks"
recipe = { epochs = 3, hidden_size = 32, text_dimensions = 32 }
"""

NEWCOMER = """
[[candidate]]
name = "sage-clicks"
family = "graph_network"
architecture = "graphsage"
relation = "clicks"
recipe = { epochs = 14, hidden_size = 64 }
"""


def environment() -> dict[str, str]:
    """Return the environment of a user who has set nothing."""
    return {
        key: value for key, value in os.environ.items() if not key.startswith(("TOURNAMENT_", "MLFLOW_", "PREFECT_"))
    }


@dataclass(frozen=True)
class Answer:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Tournament = Callable[..., Answer]


@pytest.fixture(scope="session")
def tournament(tmp_path_factory: pytest.TempPathFactory) -> Tournament:
    """Return the command: its arguments in, exit code and both streams out."""
    folder = tmp_path_factory.mktemp("elsewhere")
    # The tiny world has fewer test queries than a judge wants by default.
    (folder / "tournament.toml").write_text("minimum_test_queries = 10\n", encoding="utf-8")

    def run(*arguments: object, cwd: Path = folder) -> Answer:
        done = subprocess.run(
            [sys.executable, "-m", "esci_tournament.deployments.cli", *map(str, arguments)],
            cwd=cwd,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=300,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def clean_environment() -> dict[str, str]:
    """The environment of a user who has set nothing."""
    return environment()


@pytest.fixture(scope="session")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A candidates file of one more model."""
    path = tmp_path_factory.mktemp("specs") / "newcomer.toml"
    path.write_text(NEWCOMER, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def specs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A candidates file of three small models."""
    path = tmp_path_factory.mktemp("specs") / "candidates.toml"
    path.write_text(SPECS, encoding="utf-8")
    return path


@dataclass(frozen=True)
class HeldTournament:
    """A tournament that was held: its home, its data, its document."""

    home: Path
    data: Path
    specs: Path
    document: dict[str, Any]


@pytest.fixture(scope="session")
def held(
    tournament: Tournament, specs: Path, tiny_world: Path, tmp_path_factory: pytest.TempPathFactory
) -> HeldTournament:
    """The first tournament on the tiny world, held once for all tests. Read only but for what the story appends."""
    home = tmp_path_factory.mktemp("home")
    answer = tournament("run", "--home", home, "--data", tiny_world, "--candidates", specs, "--json")
    assert answer.code == 0, answer.err
    return HeldTournament(home, tiny_world, specs, answer.document)


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Prefect server, empty and as `tournament up` starts it; yields the address of its API."""
    settings = read_settings(home=tmp_path_factory.mktemp("prefect-server"), prefect_port=free_port())
    server = next(one for one in services_of(settings) if one.name == "prefect")
    supervisor, healthy = Supervisor(settings, [server]), threading.Event()
    running = threading.Thread(target=supervisor.run, args=(lambda _: healthy.set(),))
    running.start()
    try:
        assert healthy.wait(settings.startup_timeout_s)
        yield api_url(settings)
    finally:
        supervisor.stop()
        running.join()


@pytest.fixture
def free_ports() -> list[int]:
    """Three ports of loopback that nobody listens on."""
    return [free_port() for _ in range(3)]
