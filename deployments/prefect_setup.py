"""What a Prefect server needs beside the deployments: GPU slots, work pools, automations. Safe to apply again."""

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
from esci_tournament.deployments.heartbeats import SILENCE_S
from esci_tournament.deployments.prefect_deployments import GPU_LIMIT, HEAVY_POOL, LIGHT_POOL, deployments_of
from esci_tournament.registry.settings import Settings

SILENT = "tournament: runs that went silent have crashed"  # name of the automation

_HEARTBEAT = "prefect.flow-run.heartbeat"
_ENDS = ("Completed", "Failed", "Crashed", "Cancelled", "TimedOut", "Suspended", "Paused")


async def prepare(client: PrefectClient, settings: Settings) -> None:
    """Set the GPU slots and the notification automations to what the settings say.

    The automation of :func:`silence`, which `tournament deploy` makes, is brought up to date where there is one.
    Automations for notifications that the settings no longer ask for are deleted.

    Args:
        client: client of the Prefect server.
        settings: `gpu_slots` and `notify_block` are used.

    Raises:
        UsageError: if `notify_block` is not type/name.
        NotFoundError: if the notification block that the settings name is not there. The GPU slots are set by then,
            and earlier notification automations are deleted.
    """
    await client.upsert_global_concurrency_limit_by_name(GPU_LIMIT, settings.gpu_slots)
    if any(found.name == SILENT for found in await client.read_automations()):  # perhaps an earlier release's
        await put(client, silence(settings))
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
    """Make the work pools that are missing, of type process; existing ones stay as they are.

    Args:
        client: client of the Prefect server.

    Returns:
        The names of the pools that were made.
    """
    made = []
    for name in (HEAVY_POOL, LIGHT_POOL):
        template = ProcessWorker.get_default_base_job_template()
        try:
            await client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))
            made.append(name)
        except ObjectAlreadyExists:
            pass
    return made


def silence(settings: Settings, seconds: float = SILENCE_S) -> AutomationCore:
    """Return the automation that marks a run of our flows as crashed when it has sent no heartbeat for too long.

    The runs of a machine that was switched off would otherwise keep their concurrency slots for ever. The stack of one
    machine does without it: its worker closes such runs when it starts, and a computer that slept loses no run. Runs of
    other flows on the same server are left alone: how often they send heartbeats is not for us to say.

    Args:
        settings: what the flows are named after, see :func:`deployments_of`.
        seconds: for how long.
    """
    return AutomationCore(
        name=SILENT,
        description=f"No heartbeat for {seconds:g} s",
        trigger=EventTrigger(
            after={_HEARTBEAT},
            expect={_HEARTBEAT, *(f"prefect.flow-run.{name}" for name in _ENDS)},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            match_related=_our_flows(settings),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=dt.timedelta(seconds=seconds),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message="No heartbeat: its worker is gone. The steps that were finished are stored.",
            )
        ],
    )


def _our_flows(settings: Settings) -> ResourceSpecification:
    names = sorted({one.flow for one in deployments_of(settings)})
    return ResourceSpecification({"prefect.resource.role": "flow", "prefect.resource.name": names})


async def put(client: PrefectClient, automation: AutomationCore) -> None:
    """Create an automation, or replace the one of the same name; further ones of that name are deleted."""
    same = [found for found in await client.read_automations() if found.name == automation.name]
    if same:
        await client.update_automation(same[0].id, automation)
    else:
        await client.create_automation(automation)
    for more in same[1:]:
        await client.delete_automation(more.id)
