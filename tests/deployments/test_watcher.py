"""The watcher as a process, with real servers and databases: concurrent, killed and restarted, triggered by events."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextvars import copy_context
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
)
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Completed, Crashed, Failed, Running

from esci_tournament.deployments.webhook import DELIVERY, PATH, SIGNATURE, TIMESTAMP, sign
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.models import Models
from esci_tournament.registry.queue import Queue
from esci_tournament.registry.versions import FAILED_TAG, FLOW_RUN_TAG, SPEC_TAG, STATE_TAG
from tests.harness import Programs, answers, clean_environment, free_port, until

pytestmark = pytest.mark.slow

SPEC = json.dumps({"family": "graph_network", "architecture": "gcn"})
CANDIDATES, SHARE = 50, 10

# One process loads what takes seconds to load, and forks the watchers; each line that it reads kills one of them with
# signal 9 and starts another in its place.
WATCHERS = """
import os, signal, sys
from esci_tournament.deployments.watcher import Watcher
from esci_tournament.registry.settings import read_settings

def start():
    if child := os.fork():
        return child
    sys.stdin.close()
    Watcher(read_settings()).run()

children = [start() for _ in range(4)]
print("started", flush=True)
for number, line in enumerate(sys.stdin):
    victim = children[number % 4]
    os.kill(victim, signal.SIGKILL)
    os.waitpid(victim, 0)
    children[number % 4] = start()
for child in children:
    os.kill(child, signal.SIGKILL)
"""


@pytest.fixture
def home(tmp_path: Path, empty_mlflow: bytes) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "mlflow.db").write_bytes(empty_mlflow)
    return folder


class Worker(threading.Thread):
    """Plays the worker: takes the runs of one test as they are scheduled, and ends each as its plan says.

    Args:
        ledger_url: Where a run that completes puts its finished tournament.
        mine: Beginning of the names of the test's candidates.
        plan: Versions and number of the attempt of them -> the state in which the run ends.
    """

    def __init__(self, ledger_url: str, mine: str, plan: Callable[[list[str], int], State[Any]]) -> None:
        super().__init__(daemon=True)
        self.context = copy_context()  # in which Prefect's settings are those of the test
        self.ledger, self.mine, self.plan = Ledger.open(ledger_url), mine, plan
        self.stopped, self.together, self.tries = threading.Event(), 0, Counter[tuple[str, ...]]()
        self.ledger.record_data_version("data")
        with get_client(sync_client=True) as client:
            client.create_deployment(client.create_flow_from_name("tournament"), name="tournament")

    def runs(self) -> list[FlowRun]:
        """Return all runs of the test, in the order in which they were made."""
        chosen = DeploymentFilter(name=DeploymentFilterName(any_=["tournament"]))
        found: list[FlowRun] = []
        with get_client(sync_client=True) as client:
            while page := client.read_flow_runs(deployment_filter=chosen, offset=len(found), limit=200):
                found += page
        mine = [one for one in found if str(one.parameters.get("versions", "")).startswith(f"['{self.mine}")]
        return sorted(mine, key=lambda one: str(one.created))

    def run(self) -> None:
        self.context.run(self.work)

    def work(self) -> None:
        while not self.stopped.wait(0.5):
            waiting = [one for one in self.runs() if one.state is not None and not one.state.is_final()]
            self.together = max(self.together, len(waiting))
            for run in waiting:
                self.play(run)

    def play(self, run: FlowRun) -> None:
        versions = run.parameters["versions"]
        self.tries[tuple(versions)] += 1
        state = self.plan(versions, self.tries[tuple(versions)])
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run.id, Running(), force=True)
            if state.is_completed():
                self.ledger.start_tournament(f"t-{run.id}", "data", dict.fromkeys(versions, "newcomer"))
                self.ledger.finish_tournament(f"t-{run.id}")
            client.set_flow_run_state(run.id, state, force=True)

    def stop(self) -> None:
        self.stopped.set()
        self.join()
        self.ledger.close()


def plain_versions(models: Models, names: list[str], tag: str = SPEC) -> None:
    """Register one version of each model by plain MLflow, its spec in one tag."""
    client = models.tracking.client
    for name in names:
        client.create_model_version(name, "file:///nowhere", tags={SPEC_TAG: tag})


def test_of_50_candidates_registered_at_once_each_enters_exactly_once_though_4_watchers_are_killed(
    home, ledger_url, connected
):
    mine = f"c{uuid.uuid4().hex[:8]}"
    models = Models(f"sqlite:///{home / 'mlflow.db'}", home)
    names = [f"{mine}-{number:02d}" for number in range(CANDIDATES)]
    for name in names:
        models.tracking.client.create_registered_model(name)

    def plan(versions: list[str], attempt: int) -> State[Any]:
        if f"{names[5]}/1" in versions:
            return Failed(message="Flow run encountered an exception: CandidateError: scores are NaN")
        return Crashed(message="killed") if attempt == 1 and f"{names[20]}/1" in versions else Completed()

    environment = clean_environment(
        TOURNAMENT_HOME=home, TOURNAMENT_LEDGER_URL=ledger_url, TOURNAMENT_WATCH_INTERVAL_S=0.2, TOURNAMENT_DATA="data",
        TOURNAMENT_SHARE_TOURNAMENT=SHARE, **connected,
    )  # fmt: skip
    worker = Worker(ledger_url, mine, plan)
    worker.start()
    watchers = subprocess.Popen(
        [sys.executable, "-c", WATCHERS], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert watchers.stdin is not None
        assert watchers.stdout is not None
        assert watchers.stdout.readline() == "started\n"
        plain_versions(models, names)
        with Ledger.open(ledger_url) as ledger:
            queue = Queue(ledger)
            for _ in range(6):
                watchers.stdin.write("kill\n")
                watchers.stdin.flush()
                time.sleep(0.4)
            sent = CANDIDATES // SHARE + bool(CANDIDATES % SHARE)
            until(
                lambda: len(queue.dispatches()) == sent and not any(one.is_open for one in queue.dispatches()),
                90,
                "all dispatched and ended",
            )
            until(lambda: models.tags(f"{names[49]}/1").get(STATE_TAG) == "benched", 30, "tags follow")
            arrivals, dispatches = queue.arrivals(), queue.dispatches()
    finally:
        watchers.communicate()
        worker.stop()

    assert Counter(one.candidate for one in arrivals) == {f"{name}/1": 1 for name in names}
    assert [one.candidates for one in dispatches] == [
        tuple(f"{name}/1" for name in names[first : first + SHARE]) for first in range(0, CANDIDATES, SHARE)
    ]
    runs = worker.runs()
    assert Counter(one.idempotency_key for one in runs) == {
        f"{one.id}-{attempt.number}": 1 for one in dispatches for attempt in one.attempts
    }
    assert [len(one.attempts) for one in dispatches] == [
        2 if names[20] + "/1" in one.candidates else 1 for one in dispatches
    ]
    assert worker.together == 1
    shared = next(one for one in runs if f"{names[7]}/1" in one.parameters["versions"])
    tags = models.tags(f"{names[7]}/1")
    assert (tags[STATE_TAG], tags[FAILED_TAG]) == ("failed", "CandidateError: scores are NaN")
    assert tags[FLOW_RUN_TAG].endswith(f"/v2/runs/flow-run/{shared.id}")


def test_a_watcher_hears_of_a_candidate_from_mlflows_server_long_before_it_would_look(tmp_path, home, connected):
    mlflow_port, port = free_port(), free_port()
    variables = {
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http", "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": base64.urlsafe_b64encode(os.urandom(32)).decode(),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }  # fmt: skip
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(mlflow_port)]
    command += ["--backend-store-uri", f"sqlite:///{home / 'mlflow.db'}"]
    programs = Programs(
        tmp_path,
        clean_environment(
            TOURNAMENT_HOME=home, TOURNAMENT_MLFLOW_PORT=mlflow_port, TOURNAMENT_WATCHER_PORT=port,
            TOURNAMENT_WATCH_INTERVAL_S=3600, **connected, **variables,
        ),
    )  # fmt: skip
    models = Models(f"http://127.0.0.1:{mlflow_port}", home)
    try:
        programs.start("mlflow", command, answers(f"http://127.0.0.1:{mlflow_port}/health"), 180)
        health = f"http://127.0.0.1:{port}/healthz"

        def sweeps() -> int:
            return int(httpx.get(health).json()["sweeps"])

        programs.start("watcher", [sys.executable, "-m", "esci_tournament.deployments.watcher"], sweeps, 180)
        until(lambda: "sends its events" in programs.log("watcher"), 180, "subscribed", tmp_path)
        assert sweeps() == 1
        client = models.tracking.client
        client.create_registered_model("heard")
        client.create_model_version("heard", "s3://nowhere/model")  # a local path is not taken by a server
        client.set_model_version_tag("heard", "1", SPEC_TAG, SPEC)
        until(lambda: models.tags("heard/1").get(STATE_TAG) == "queued", 90, "heard of")
        body = b'{"entity": "model_version", "action": "created", "data": {"name": "heard", "version": "1"}}'
        before = -1
        while before != (before := sweeps()):  # what MLflow tells of the tag may come late
            time.sleep(3)
        forged = {DELIVERY: "x", TIMESTAMP: str(int(time.time())), SIGNATURE: sign("a guess", "x", "1", body)}
        assert httpx.post(f"http://127.0.0.1:{port}{PATH}", content=body, headers=forged).status_code == 401
        assert sweeps() == before
        programs.end("mlflow")  # nobody is left to tell, and the watcher goes on
        assert programs.end("watcher", signal.SIGTERM) == 0
    finally:
        programs.end_all()
