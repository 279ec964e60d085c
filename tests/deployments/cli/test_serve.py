"""`tournament serve` as a process, with the champion of a finished tournament."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pandas as pd
import psutil
import pytest

from esci_tournament.tasks.data.load import load_esci
from esci_tournament_client import Client, Retry
from tests.harness import COMMAND, clean_environment, start_warm

pytestmark = pytest.mark.slow


ARGUMENTS = ("--port", 0, "--json")


@contextmanager
def serving(home: Path) -> Iterator[Client]:
    """Run the command on a free port until it is ready, and stop it as an operator would."""
    pipe = home / f"address-{uuid.uuid4().hex}.pipe"
    os.mkfifo(pipe)
    process = start_warm(["serve", "--home", home, *ARGUMENTS], home, clean_environment(), pipe, home / "serve.log")
    try:
        with pipe.open(encoding="utf-8") as lines, ready(lines) as client:
            yield client
    finally:
        assert process.pid is not None
        os.kill(process.pid, signal.SIGTERM)
        process.join(30)
    assert process.exitcode == -signal.SIGTERM  # uvicorn closes everything, and ends by the signal it was sent


@contextmanager
def running(home: Path) -> Iterator[tuple[Client, subprocess.Popen[str]]]:
    """Run the command as a user starts it, and yield the process as well."""
    command = [*COMMAND, "serve", "--home", str(home), *map(str, ARGUMENTS)]
    with subprocess.Popen(
        command, env=clean_environment(), cwd=home, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            with ready(process.stdout) as client:
                yield client, process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


@contextmanager
def ready(lines: IO[str]) -> Iterator[Client]:
    """Read from what the command prints where it listens, and yield a client once the champion is loaded."""
    said = ""
    while "}" not in said:
        line = lines.readline()
        assert line, said
        said += line
    with Client(json.loads(said)["address"], timeout_s=70, retry=Retry(60, 0.5, 180)) as client:
        client.champion()  # 503 until it is loaded: the client waits
        yield client


@pytest.fixture
def home(held, tmp_path) -> Path:
    """A home of the test's own; MLflow's artifacts stay where the tournament put them."""
    return Path(shutil.copytree(held.home, tmp_path / "home", ignore=shutil.ignore_patterns("mlartifacts", "prefect")))


def test_a_page_by_id_is_what_the_champion_says_and_is_known_after_a_restart(held, home, tournament, tmp_path):
    products = load_esci(held.data).products
    some = products[products["locale"] == "es"].head(40)
    ids = some["product_id"].tolist()
    with serving(home) as client:
        first = client.score("lampara roja", "es", ids, deadline_ms=60_000)
        champion = client.champion().version
    assert first.complete
    assert first.cache_hits == 0
    rows = pd.DataFrame({"query": "lampara roja", "product_locale": "es", "product_id": ids})
    texts = {
        "title": "title",
        "brand": "brand",
        "color": "color",
        "bullets": "bullet_point",
        "description": "description",
    }
    for name, official in texts.items():
        rows[f"product_{official}"] = some[name].to_numpy()
    rows.to_csv(tmp_path / "pairs.csv", index=False)
    said = tournament("score", tmp_path / "pairs.csv", "--home", held.home, "--json").document
    assert said["champion"] == champion
    assert [one.label for one in first.products] == [row["label"] for row in said["pairs"]]
    for one, row in zip(first.products, said["pairs"], strict=True):
        assert one.probabilities == pytest.approx({label: row[label] for label in "ESCI"}, abs=2e-4)
    for lost in ("mlflow.db", "ledger.db"):  # a new process, without ledger and MLflow, on its own copy
        os.replace(home / lost, home / f"{lost}.gone")
    (home / "ledger.db").mkdir()
    with serving(home) as client:
        again = client.score("lampara roja", "es", ids)
    assert again.cache_hits == 40
    assert [(one.label, one.probabilities) for one in again.products] == [
        (one.label, one.probabilities) for one in first.products
    ]


def test_newer_data_is_taken_up_while_it_serves(held, home, tournament, grown_world):
    wanted = load_esci(grown_world)
    known = load_esci(held.data).products
    old = known[known["locale"] == "us"]["product_id"].tolist()[:20]
    fresh = sorted(set(wanted.products["product_id"]) - set(known["product_id"]))
    fresh = wanted.products[wanted.products["product_id"].isin(fresh) & (wanted.products["locale"] == "us")]
    new = fresh["product_id"].tolist()[:20]
    with serving(home) as client:
        before = client.score("red lamp", "us", old + new, deadline_ms=60_000)
        assert [one.error and one.error.code for one in before.products[20:]] == ["unknown_product"] * 20
        assert tournament("champion", "refresh", "--home", home, "--data", grown_world).code == 0
        end = time.monotonic() + 120
        while client.champion().data != wanted.version:
            assert time.monotonic() < end
            assert client.score("red lamp", "us", old, deadline_ms=60_000).complete
        after = client.score("red lamp", "us", old + new, deadline_ms=60_000)
        assert all(one.label for one in after.products)
        state = client.champion()
    assert before.champion == after.champion
    assert str(after.champion) == f"{state.name}/{state.version}"
    assert state.edges == wanted.version  # there is a graph network among the members
    assert [one.probabilities for one in after.products[:20]] != [one.probabilities for one in before.products[:20]]
    with serving(home) as client:  # and a restart begins with it
        assert client.champion().data == wanted.version
        again = client.score("red lamp", "us", old + new)
    assert again.cache_hits == 40
    assert [one.probabilities for one in again.products] == [one.probabilities for one in after.products]


def test_killed_it_leaves_no_process_behind(home):
    with running(home) as (client, process):
        client.score("red lamp", "us", [{"title": "red lamp"}])
        processes = psutil.Process(process.pid).children(recursive=True)
        assert len(processes) >= 3
        process.kill()
        _, left = psutil.wait_procs(processes, 10)
    assert not left


def test_without_a_key_it_listens_on_this_machine_alone(tournament, tmp_path):
    answer = tournament("serve", "--host", "0.0.0.0", "--port", 0, "--home", tmp_path)
    assert answer.code == 2
    assert re.search("no API key was made.*keys create", answer.err)
