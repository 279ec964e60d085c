"""Flow runs send heartbeats as the server's automation wants them, wherever they run."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from importlib.resources import files
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID, uuid4

import pytest
import yaml
from prefect import flow
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.context import refresh_global_settings_context
from prefect.events import Event
from prefect.flow_engine import MINIMUM_HEARTBEAT_INTERVAL
from prefect.settings import get_current_settings
from prefect.settings.models.flows import FlowsSettings
from prefect.states import Running
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker

from esci_tournament.deployments.heartbeats import FREQUENCY, HEARTBEAT_S, SILENCE_S, heartbeat_environment
from esci_tournament.deployments.local import quiet_prefect
from esci_tournament.deployments.prefect_setup import SILENT, prepare, put, silence
from esci_tournament.deployments.stack.services import services_of
from esci_tournament.deployments.worker import make_runner
from esci_tournament.registry.settings import read_settings
from tests.harness import PrefectServer

ROOT = Path(__file__).resolve().parents[2]
WRONG = "600"  # in the environment of whoever starts it


def of_up(home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (worker,) = (one for one in services_of(read_settings(home=home)) if one.name == "worker")
    return (os.environ | worker.environment)[FREQUENCY]


def of_the_workers_runs(home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    return str(make_runner(read_settings(home=home))._heartbeat_seconds)


def of_a_command(home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    with patch.dict(os.environ):
        quiet_prefect(read_settings(home=home))
        found = get_current_settings().flows.heartbeat_frequency
    monkeypatch.undo()
    refresh_global_settings_context()  # Prefect reads the environment when it is told to
    return str(found)


def of_prefects_worker(home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """As `prefect worker start` does it; the process of a run is told by the deployment."""
    content = yaml.safe_load((files("esci_tournament.deployments") / "prefect.yaml").read_text(encoding="utf-8"))
    found = set()
    for one in content["deployments"]:
        assert ProcessWorker.get_default_base_job_template()["job_configuration"]["env"] == "{{ env }}"
        made = ProcessJobConfiguration(env=one["work_pool"]["job_variables"]["env"])
        made.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4()))
        found.add(str(made.env[FREQUENCY]))
    (same,) = found
    return same


def of_the_production_stack(home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    services = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))["services"]
    found = {services[name]["environment"][FREQUENCY] for name in ("worker", "reviewer")}
    (same,) = found
    return str(same)


@pytest.mark.parametrize(
    "place", [of_up, of_the_workers_runs, of_a_command, of_prefects_worker, of_the_production_stack]
)
def test_wherever_a_run_is_started_it_sends_heartbeats_as_often(
    place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the stack of `tournament up` they came every 181 s, and 150 s of silence were taken for death."""
    monkeypatch.setenv(FREQUENCY, WRONG)
    assert float(place(tmp_path, monkeypatch)) == HEARTBEAT_S


def test_the_automation_waits_for_longer_than_any_run_takes_between_heartbeats() -> None:
    assert heartbeat_environment() == {FREQUENCY: str(HEARTBEAT_S)}
    assert HEARTBEAT_S >= MINIMUM_HEARTBEAT_INTERVAL  # Prefect takes a smaller number for this one
    assert FREQUENCY.lower() in str(FlowsSettings.model_fields["heartbeat_frequency"].validation_alias)
    by_itself = FlowsSettings.model_fields["heartbeat_frequency"].default  # of a process that was started past us
    assert 3 * by_itself < SILENCE_S
    within = silence(read_settings()).trigger.within  # type: ignore[union-attr]
    assert within == dt.timedelta(seconds=SILENCE_S)


async def running(client: PrefectClient, name: str) -> UUID:
    """Return a run of a flow, which nobody runs."""

    @flow(name=name)
    def of_that_name() -> None: ...

    run = await client.create_flow_run(of_that_name)
    await client.set_flow_run_state(run.id, Running(), force=True)
    return run.id


async def beat(client: PrefectClient, run: UUID, name: str) -> None:
    """Send a heartbeat as Prefect's flow engine does."""
    event = Event(
        event="prefect.flow-run.heartbeat",
        resource={"prefect.resource.id": f"prefect.flow-run.{run}"},
        related=[
            {"prefect.resource.id": f"prefect.flow.{uuid4()}", "prefect.resource.role": "flow"}
            | {"prefect.resource.name": name}
        ],
    )
    await client.request("POST", "/events", json=[event.model_dump(mode="json")])


@pytest.mark.slow
def test_a_run_that_goes_silent_has_crashed_one_that_does_not_and_those_of_others_have_not(
    prefect: PrefectServer, tmp_path: Path
) -> None:
    """With ten seconds of silence, Prefect's least, in place of ten minutes."""
    settings = read_settings(home=tmp_path)

    async def story() -> tuple[dict[str, str], list[Any]]:
        async with get_client() as client:
            await put(client, silence(settings, 10))
            await asyncio.sleep(3)  # the server reads new automations beside answering
            runs = {"alive": "tournament", "silent": "tournament", "of somebody else": "their flow"}
            ids = {key: await running(client, name) for key, name in runs.items()}
            for key, name in runs.items():
                await beat(client, ids[key], name)
            for _ in range(24):
                await asyncio.sleep(1)
                await beat(client, ids["alive"], "tournament")
                state = (await client.read_flow_run(ids["silent"])).state
                if state is not None and state.is_crashed():
                    break
            states = {key: (await client.read_flow_run(id)).state for key, id in ids.items()}
            await prepare(client, settings)  # as the worker does: what an earlier release left is brought up to date
            left = [one for one in await client.read_automations() if one.name == SILENT]
            for one in left:
                await client.delete_automation(one.id)
            return {key: state.type.value for key, state in states.items() if state}, left

    with prefect.connected():
        states, (left,) = asyncio.run(story())
    assert states == {"alive": "RUNNING", "silent": "CRASHED", "of somebody else": "RUNNING"}
    assert left.trigger.within == dt.timedelta(seconds=SILENCE_S)
