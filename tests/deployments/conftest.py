"""Fixtures for the command line: each command runs as its own process in its own folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Answer, clean_environment, free_port, fresh, new_home, warm

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


Tournament = Callable[..., Answer]


def refused(answer: Answer, code: int, *words: str) -> None:
    """Check exit code, words on standard error, and that there is no traceback."""
    assert answer.code == code, answer.err
    for word in words:
        assert word in answer.err
    assert "Traceback" not in answer.err


@pytest.fixture(scope="session")
def tournament(tmp_path_factory: pytest.TempPathFactory) -> Tournament:
    """Return the command: its arguments in, exit code and both streams out."""
    folder = tmp_path_factory.mktemp("elsewhere")
    # The tiny world has fewer test queries than a judge wants by default.
    (folder / "tournament.toml").write_text("minimum_test_queries = 10\n", encoding="utf-8")

    def run(*arguments: object, cwd: Path = folder, **variables: str) -> Answer:
        # `deploy` names its server in the environment, which Prefect reads when it is imported.
        return (fresh if arguments[0] == "deploy" else warm)(arguments, cwd, clean_environment(**variables))

    return run


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
class FinishedTournament:
    """A tournament that was held: its home, its data, its document."""

    home: Path
    data: Path
    specs: Path
    document: dict[str, Any]


@pytest.fixture(scope="session")
def held(
    tournament: Tournament, specs: Path, tiny_world: Path, tmp_path_factory: pytest.TempPathFactory
) -> FinishedTournament:
    """The first tournament on the tiny world, held once for all tests. Read only but for what the story appends."""
    home = new_home(tmp_path_factory.mktemp("held") / "home")
    answer = tournament("run", "--home", home, "--data", tiny_world, "--candidates", specs, "--json")
    assert answer.code == 0, answer.err
    return FinishedTournament(home, tiny_world, specs, answer.document)


@pytest.fixture
def free_ports() -> list[int]:
    """Three ports of loopback that nobody listens on."""
    return [free_port() for _ in range(3)]
