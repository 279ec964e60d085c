"""The Prefect server of the stack starts scheduled runs."""

from __future__ import annotations

import asyncio
import time

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.client.schemas.schedules import CronSchedule
from prefect.settings import PREFECT_API_URL, temporary_settings

pytestmark = pytest.mark.slow


def test_a_weekly_schedule_has_its_next_runs(prefect_server: str) -> None:
    @flow(name="weekly-flow")
    def weekly() -> None: ...

    async def scheduled() -> list[str]:
        async with get_client() as client:
            deployment = await client.create_deployment(
                await client.create_flow(weekly),
                name="weekly",
                schedules=[DeploymentScheduleCreate(schedule=CronSchedule(cron="0 3 * * 1", timezone="UTC"))],
            )
            end = time.monotonic() + 30
            of_it = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment]))
            while not (runs := await client.read_flow_runs(flow_run_filter=of_it)) and time.monotonic() < end:
                await asyncio.sleep(0.2)
            await client.delete_deployment(deployment)
            return [f"{run.expected_start_time:%a %H:%M} {run.state_name}" for run in runs]

    with temporary_settings({PREFECT_API_URL: prefect_server}):
        assert set(asyncio.run(scheduled())) == {"Mon 03:00 Scheduled"}
