"""The worker, `python -m esci_tournament.deployments.worker`: runs tournaments, reviews and weekly re-evaluations."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from importlib.util import find_spec
from uuid import UUID

import httpx
import psutil
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import State, StateType
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.exceptions import PrefectException
from prefect.runner import Runner
from prefect.states import Crashed
from prefect.utilities.callables import ParameterSchema

from esci_tournament.deployments.heartbeats import HEARTBEAT_S
from esci_tournament.deployments.lasting_output import outlast_output
from esci_tournament.deployments.prefect_deployments import Deployment, deployments_of
from esci_tournament.deployments.prefect_setup import prepare
from esci_tournament.registry.errors import TournamentError
from esci_tournament.registry.secrecy import hide_process
from esci_tournament.registry.settings import Settings, read_settings

SERVER_S = 60.0  # given to a Prefect server that is being restarted; loading this program again would take longer
QUERY_S = 2.0  # a resumed review goes on within this time
BLOCK_S = 20.0  # between two looks for a notification block that is missing
OWN_END_S = 3.0  # given to flow runs that were told to end together with the worker
LAST_WORDS_S = 5.0  # and then, told by the worker, to report it themselves; in all less than a container's 10 s

# A run in one of these states has, or is about to have, a process of this worker.
HELD = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)

_log = logging.getLogger("worker")


def main() -> None:
    """Serve the deployments until SIGTERM, SIGINT or SIGHUP, then end the process; exit code 1 when serving failed."""
    hide_process()
    outlast_output()
    _log.setLevel(logging.INFO)  # Prefect gives the root logger a handler, and a level that hides our messages
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: ended.set())
    failed: list[BaseException] = []

    def serve() -> None:
        try:
            asyncio.run(_serve(read_settings()))
        except BaseException as error:
            failed.append(error)
            if isinstance(error, httpx.HTTPError | RuntimeError):
                _log.error("the Prefect server does not answer: %s", error)
            else:
                _log.exception("the worker cannot go on")
        finally:
            ended.set()

    # Not in the main thread: there, Prefect's runner would cancel every run when this process is told to end, as if a
    # user had cancelled it. Runs that get SIGTERM themselves report a crash.
    threading.Thread(target=serve, daemon=True, name="runner").start()
    ended.wait()
    _, alive = psutil.wait_procs(psutil.Process().children(), timeout=OWN_END_S)
    for process in alive:  # a container tells its first process alone
        with suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(alive, timeout=LAST_WORDS_S)
    for process in alive:
        with suppress(psutil.Error):
            process.kill()
    sys.stderr.flush()
    os._exit(1 if failed else 0)  # the runner's thread polls for ever


async def _serve(settings: Settings) -> None:
    runner = make_runner(settings)
    async with get_client() as client:
        await until_it_answers(client, SERVER_S)
        told = await _prepared(client, settings)
        ids = [await runner.aadd_deployment(as_deployment(one)) for one in available(settings)]
        await close_orphans(client, ids)
    preparing = None if told else asyncio.create_task(_until_prepared(settings))
    try:
        await runner.start()
    finally:
        if preparing is not None:
            preparing.cancel()


def make_runner(settings: Settings) -> Runner:
    """Return Prefect's runner, whose runs send heartbeats as the server's automation wants them.

    Args:
        settings: `worker_processes` is used.
    """
    return Runner(
        name="tournament-worker",
        limit=settings.worker_processes,
        query_seconds=QUERY_S,
        pause_on_shutdown=False,
        heartbeat_seconds=HEARTBEAT_S,
    )


async def _prepared(client: PrefectClient, settings: Settings) -> bool:
    """Prepare the server; without the notification block no notifications are sent, and everything else goes on."""
    try:
        await prepare(client, settings)
    except TournamentError as error:
        _log.warning("%s", error)
        return False
    return True


async def _until_prepared(settings: Settings) -> None:
    """Prepare the server as soon as somebody has made the notification block, which needs a server that runs."""
    while True:
        await asyncio.sleep(BLOCK_S)
        with suppress(httpx.HTTPError, PrefectException, TournamentError):
            async with get_client() as client:
                await prepare(client, settings)
            _log.info("notifications are sent to %s from now on", settings.notify_block)
            return


async def until_it_answers(client: PrefectClient, seconds: float) -> None:
    """Wait until the Prefect server answers.

    Args:
        client: client of the Prefect server.
        seconds: how long at most.

    Raises:
        httpx.HTTPError: if it does not answer in time, or answers with an error: it wants another password.
    """
    end, told = time.monotonic() + seconds, False
    while (trouble := await client.api_healthcheck()) is not None:
        if time.monotonic() > end or not isinstance(trouble, httpx.TransportError):
            raise trouble
        if not told:
            _log.warning("the Prefect server does not answer yet: %s", trouble)
            told = True
        await asyncio.sleep(0.5)


def available(settings: Settings) -> list[Deployment]:
    """Return the deployments whose flow's module is installed."""
    return [one for one in deployments_of(settings) if find_spec(one.entrypoint.rpartition(".")[0])]


class ClosedSchema(ParameterSchema):
    """Parameters of a flow and no others: the server refuses a run that is asked for with one that it does not have."""

    additionalProperties: bool = False  # the name that JSON Schema has for it


def as_deployment(one: Deployment) -> RunnerDeployment:
    """Return a deployment in the form that Prefect's runner serves, with its schedule (UTC) and its trigger."""
    made = RunnerDeployment.from_entrypoint(
        one.entrypoint,
        name=one.name,
        description=one.description,
        concurrency_limit=one.concurrency_limit,
        schedules=[CronSchedule(cron=one.cron, timezone="UTC")] if one.cron else None,
        triggers=[DeploymentEventTrigger(name=f"{one.full_name} on {one.event}", expect={one.event})]
        if one.event
        else None,
    )
    known = made._parameter_openapi_schema.model_dump(exclude_unset=True)
    made._parameter_openapi_schema = ClosedSchema(**known, additionalProperties=False)
    return made


async def close_orphans(client: PrefectClient, deployments: list[UUID]) -> int:
    """Mark runs that a killed worker held as crashed.

    Otherwise they would count as running for ever, against their deployment's concurrency limit.

    Args:
        client: client of the Prefect server.
        deployments: ids of the deployments that this worker alone serves; it must not have started a run yet.

    Returns:
        How many runs were marked.
    """
    found = await client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(HELD)))),
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=deployments)),
    )
    for run in found:
        crashed: State[None] = Crashed(
            message="The worker that held this run was ended. What the run had finished is stored."
        )
        await client.set_flow_run_state(run.id, crashed, force=True)
        _log.info("run %s of a worker that was ended is marked as crashed", run.name)
    return len(found)


if __name__ == "__main__":
    main()
