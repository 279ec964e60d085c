"""What a Prefect server must know beside the deployments: GPU slots, work pools, automations. Safe to apply again."""

from __future__ import annotations

import datetime as dt

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectAlreadyExists
from prefect.workers.process import ProcessWorker

from esci_tournament.deployments import notifications
from esci_tournament.deployments.prefect_deployments import GPU_LIMIT, HEAVY_POOL, LIGHT_POOL, deployments_of
from esci_tournament.registry.settings import Settings

HEARTBEAT_S = 30  # Prefect's least; workers set PREFECT_FLOWS_HEARTBEAT_FREQUENCY to it
SILENCE_S = 150  # so long without a sign of life, and the run is taken for dead

_HEARTBEAT = "prefect.flow-run.heartbeat"
_ENDS = ("Completed", "Failed", "Crashed", "Cancelled", "TimedOut", "Suspended", "Paused")


async def prepare(client: PrefectClient, settings: Settings) -> None:
    """Make GPU slots and notifications what the settings say.

    Raises:
        NotFoundError: if the notification block that the settings name is not there; all else is done by then.
    """
    await client.upsert_global_concurrency_limit_by_name(GPU_LIMIT, settings.gpu_slots)
    told = []
    try:
        if settings.notify_block:
            block = await notifications.find_block(client, settings.notify_block)
            told = notifications.automations(block, sorted({one.flow for one in deployments_of(settings)}))
    finally:
        for automation in told:
            await put(client, automation)
        for found in await client.read_automations():
            if found.name.startswith(notifications.PREFIX) and found.name not in {one.name for one in told}:
                await client.delete_automation(found.id)


async def make_pools(client: PrefectClient) -> list[str]:
    """Make the work pools that are missing, of type process, and return their names; others stay as they are."""
    made = []
    for name in (HEAVY_POOL, LIGHT_POOL):
        template = ProcessWorker.get_default_base_job_template()
        try:
            await client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))
            made.append(name)
        except ObjectAlreadyExists:
            pass
    return made


def silence() -> AutomationCore:
    """Return the automation that takes a run for crashed which has stopped to give signs of life.

    A machine that is switched off tells nobody; without this its runs would hold their places for ever. On one
    machine the worker itself closes such runs at its start, and a computer that slept is not taken for dead.
    """
    return AutomationCore(
        name="tournament: runs that went silent have crashed",
        description=f"No heartbeat for {SILENCE_S} s",
        trigger=EventTrigger(
            after={_HEARTBEAT},
            expect={_HEARTBEAT, *(f"prefect.flow-run.{name}" for name in _ENDS)},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=dt.timedelta(seconds=SILENCE_S),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message="No sign of life: its worker is gone. What it had finished is stored.",
            )
        ],
    )


async def put(client: PrefectClient, automation: AutomationCore) -> None:
    """Create an automation, or replace the one of the same name."""
    same = [found for found in await client.read_automations() if found.name == automation.name]
    if same:
        await client.update_automation(same[0].id, automation)
    else:
        await client.create_automation(automation)
    for more in same[1:]:
        await client.delete_automation(more.id)
