"""A worker handles the runs of a killed worker, on a real Prefect server."""

from __future__ import annotations

import asyncio
from uuid import UUID

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
