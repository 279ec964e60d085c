"""A worker handles the runs of a killed worker, on a real Prefect server, and ends its own when it is told to end."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from uuid import UUID

import psutil
import pytest
from prefect import flow
from prefect.client.orchestration import PrefectClient, get_client
from prefect.states import Completed, Pending, Running, Scheduled, State, Suspended

from esci_tournament.deployments.worker import close_orphans
from tests.harness import PrefectServer

pytestmark = pytest.mark.slow

BEFORE: dict[str, State[None]] = {
    "running": Running(),
    "about to run": Pending(),
    "waits for its reviewer": Suspended(timeout_seconds=3600),
    "waits for its turn": Scheduled(),
    "done": Completed(),
}


async def type_of(client: PrefectClient, run: UUID) -> str:
    state = (await client.read_flow_run(run)).state
    assert state is not None
    return state.type.value


def test_runs_without_a_process_have_crashed_and_those_that_wait_go_on_waiting(prefect: PrefectServer) -> None:
    @flow(name="orphaned")
    def orphaned() -> None: ...

    async def story() -> tuple[int, dict[str, str], str]:
        async with get_client() as client:
            flow_id = await client.create_flow(orphaned)
            ours, other = [await client.create_deployment(flow_id, name=name) for name in ("ours", "another's")]
            runs = {}
            for name, state in BEFORE.items():
                run = await client.create_flow_run_from_deployment(ours, name=name)
                await client.set_flow_run_state(run.id, state, force=True)
                runs[name] = run.id
            elsewhere = await client.create_flow_run_from_deployment(other)
            await client.set_flow_run_state(elsewhere.id, Running(), force=True)
            closed = await close_orphans(client, [ours])
            after = {name: await type_of(client, id) for name, id in runs.items()}
            untouched = await type_of(client, elsewhere.id)
            await client.delete_deployment(ours)
            await client.delete_deployment(other)
            return closed, after, untouched

    with prefect.connected():
        closed, after, untouched = asyncio.run(story())
    assert closed == 2
    assert after == {
        "running": "CRASHED",
        "about to run": "CRASHED",
        "waits for its reviewer": "PAUSED",
        "waits for its turn": "SCHEDULED",
        "done": "COMPLETED",
    }
    assert untouched == "RUNNING"


RUNS = {
    "ends when it is told to": "import time; time.sleep(60)",
    "does not": "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)",
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_a_worker_that_alone_is_told_to_end_takes_its_runs_along(run: str) -> None:
    """As a container tells its first process; slow because Prefect is imported."""
    script = f"""
import asyncio, subprocess, sys
from esci_tournament.deployments import worker
worker.OWN_END_S, worker.LAST_WORDS_S = 0.2, 1.0
async def serve(settings):
    child = subprocess.Popen([sys.executable, "-c", {run!r}], stdout=subprocess.PIPE)
    await asyncio.sleep(0.5)
    print(child.pid, flush=True)
    await asyncio.sleep(60)
worker._serve = serve
worker.main()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = psutil.Process(int(process.stdout.readline()))
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
