"""From registration to champion and rollback, with the servers on PostgreSQL. On SQLite: test_first_hour.py."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import psutil
import pytest
from mlflow.tracking import MlflowClient

from esci_tournament.deployments.stack.access import PASSWORD_FILE
from esci_tournament.deployments.stack.logins import LOGIN_PATH
from esci_tournament.deployments.stack.state import running
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.states import CandidateState, states
from esci_tournament.tasks.data.dataset import Dataset
from tests.harness import clean_environment, fresh, warm

pytestmark = [
    pytest.mark.slow,
    pytest.mark.postgres,
    pytest.mark.timeout(900),
]  # minutes, on two cores that others use too

SETTINGS = """
minimum_test_queries = 10
resamples = 1000
keep_score_files = true
watch_interval_s = 1
"""
CANDIDATE = """
[[candidate]]
name = "{name}"
family = "scores"
file = "{name}.parquet"
trained_on = "other_queries"
provenance = "made for a test"
"""
DATABASE_PASSWORD = "hunter2-of-the-database"
WAIT_S = 180.0  # a tournament of score files takes about 25 s on two cores with nothing else to do

Command = Callable[..., Any]


def score_file(folder: Path, dataset: Dataset, name: str, signal: float) -> Path:
    """Write the scores of a model that knows the label by so much, and the file that registers it."""
    generator = np.random.default_rng(len(name))
    label = dataset.pairs["label"].to_numpy()
    logits = generator.normal(size=(len(label), 4))
    logits[np.arange(len(label)), label] += signal
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    frame = pd.DataFrame(shares.astype("float64"), columns=["E", "S", "C", "I"])
    frame.insert(0, "example_id", dataset.pairs["example_id"].to_numpy())
    frame.to_parquet(folder / f"{name}.parquet", index=False)
    file = folder / f"{name}.toml"
    file.write_text(CANDIDATE.format(name=name), encoding="utf-8")
    return file


@pytest.fixture
def folder(tmp_path: Path, tiny_dataset: Dataset) -> Path:
    """A working folder with settings and two candidates, one weak and one strong, and folders named as ours are."""
    for name in ("tasks", "flows", "registry"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('a folder of the user was taken for ours')")
    (tmp_path / "tournament.toml").write_text(SETTINGS, encoding="utf-8")
    score_file(tmp_path, tiny_dataset, "weak", 1.0)
    score_file(tmp_path, tiny_dataset, "strong", 4.0)
    return tmp_path


@pytest.fixture
def databases(postgres_server: str) -> dict[str, str]:
    """The variables that put ledger, MLflow and Prefect on PostgreSQL."""
    import psycopg

    # The test's cluster asks for no password; this one is looked for where no password may stand.
    server = postgres_server.replace("tournament@", f"tournament:{DATABASE_PASSWORD}@")
    names = {name: f"{name}_{uuid.uuid4().hex}" for name in ("ledger", "mlflow", "prefect")}
    with psycopg.connect(f"{server.replace('+psycopg', '')}/postgres", autocommit=True) as connection:
        for name in names.values():
            connection.execute(f"CREATE DATABASE {name}")
    return {
        "TOURNAMENT_LEDGER_URL": f"{server}/{names['ledger']}",
        "TOURNAMENT_MLFLOW_URI": f"{server}/{names['mlflow']}",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"{server.replace('psycopg', 'asyncpg')}/{names['prefect']}",
    }


@pytest.fixture
def say(folder: Path, databases: dict[str, str]) -> Iterator[Command]:
    """Run `tournament` in the folder and return its document; whatever runs at the end is ended."""

    def run(*arguments: object) -> Any:
        # What starts and ends the servers does so as a user does; the others come after their imports.
        start = fresh if arguments[0] in ("up", "down") else warm
        answer = start([*arguments, "--home", "home", "--json"], folder, clean_environment(**databases))
        logs = folder / "home" / "logs"
        ends = "\n".join(f"{log.name}: {log.read_text(errors='replace')[-1500:]}" for log in logs.glob("*.log"))
        assert answer.code == 0, f"{arguments}: {answer.err}\n{ends}"
        return answer.document

    yield run
    run("down")


def wait_for_review(say: Command, ledger: Ledger, candidate: str) -> int:
    """Return the number of the verdict on a candidate once it waits for a reviewer."""
    end = time.monotonic() + WAIT_S
    while (now := states(ledger, "esci-ensemble").get(candidate, CandidateState())).state != "in review":
        assert now.state not in ("failed", "refused", "benched"), now
        assert time.monotonic() < end, f"{candidate} was not judged in {WAIT_S:g} s: {now}"
        time.sleep(0.5)
    (case,) = say("review", "list")
    assert case["tournament"] == now.tournament
    assert case["flow_run"].startswith("http")
    return case["verdict"]


def keep_out(up: Any, home: Path) -> None:
    """Check that neither server answers a foreign page, and that no password stands where others read it."""
    evil = {"Origin": "https://evil.example"}, {"Host": "evil.example"}
    mlflow = f"{up['addresses']['mlflow']}/api/2.0/mlflow/experiments/create"
    for headers in evil:
        assert httpx.post(mlflow, json={"name": "theirs"}, headers=headers).status_code == 403
        assert (
            httpx.post(f"{up['prefect_api_url']}/flows/", json={"name": "theirs"}, headers=headers).status_code == 403
        )
    assert httpx.post(f"{up['prefect_api_url']}/flows/", json={"name": "theirs"}).status_code == 401
    password = (home / "stack" / PASSWORD_FILE).read_text(encoding="ascii").partition(":")[2]
    lines = [" ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"])]
    assert any("mlflow" in line for line in lines)
    for secret in (password, DATABASE_PASSWORD):
        assert [line for line in lines if secret in line] == []
    said = "".join(log.read_text(encoding="utf-8", errors="replace") for log in (home / "logs").glob("*.log"))
    assert password not in said
    assert DATABASE_PASSWORD not in said + (home / "stack" / "state.json").read_text(encoding="utf-8") + str(up)
    assert up["login"].partition("#")[2].partition(":")[0] not in said


def test_registered_judged_approved_champion_and_one_step_back(
    say: Command, databases: dict[str, str], folder: Path, tiny_world: Path, free_ports: list[int]
) -> None:
    ports = [f"--{name}-port={port}" for name, port in zip(("prefect", "mlflow", "watcher"), free_ports, strict=True)]
    up = say("up", "--data", tiny_world, "--detach", *ports)
    assert up["healthy"]
    assert say("up")["services"] == up["services"]
    keep_out(up, folder / "home")
    ledger = Ledger.open(databases["TOURNAMENT_LEDGER_URL"])
    say("register", "weak.toml")
    verdict = wait_for_review(say, ledger, "weak/1")
    say("review", "approve", verdict, "--reviewer", "ana", "--reason", "the first")

    # What MLflow's server says: it and the command line see one registry.
    mlflow = MlflowClient(up["addresses"]["mlflow"], up["addresses"]["mlflow"])

    def aliased(alias: str) -> int:
        return int(mlflow.get_model_version_by_alias("esci-ensemble", alias).version)

    assert aliased("champion") == 1
    say("register", "strong.toml")
    verdict = wait_for_review(say, ledger, "strong/1")
    shown = warm(["review", "show", verdict, "--home", "home"], folder, clean_environment(**databases)).out
    assert f"a login that works once: {up['prefect_api_url'].removesuffix('/api')}{LOGIN_PATH}#" in shown
    assert aliased("champion") == 1
    say("review", "approve", verdict, "--reviewer", "ana", "--reason", "better everywhere")
    assert (aliased("champion"), aliased("previous")) == (2, 1)
    assert "strong/1" in say("champion", "show")["members"]

    started = time.monotonic()
    say("champion", "rollback", "--reason", "slower than it looked")
    assert time.monotonic() - started < 30
    assert aliased("champion") == 1
    history = [(row["kind"], row["version"], row["by"]) for row in say("champion", "history")]
    assert history[:2] == [("promote", 1, "ana"), ("promote", 2, "ana")]
    assert history[2][:2] == ("rollback", 1)

    assert say("down")["ended"] == ["mlflow", "prefect", "watcher", "worker"]
    assert running(folder / "home") is None
    for port in free_ports:
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{port}/", timeout=5)
