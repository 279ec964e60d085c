"""The deployments: one list, and both ways to put them on a server."""

from __future__ import annotations

import asyncio
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.flows import load_flow_from_entrypoint

from esci_tournament.deployments.cli.deploy import prepare_server, write_file
from esci_tournament.deployments.heartbeats import heartbeat_environment
from esci_tournament.deployments.prefect_deployments import (
    GPU_LIMIT,
    HEAVY_POOL,
    LIGHT_POOL,
    Deployment,
    deployments_of,
)
from esci_tournament.deployments.stack.access import CLIENT_AUTH
from esci_tournament.deployments.worker import as_deployment
from esci_tournament.registry.settings import read_settings
from tests.harness import PrefectServer


def in_file(name: str, deployment: dict[str, Any]) -> Deployment:
    """Return a deployment of prefect.yaml as one of served.py."""
    (schedule,) = deployment["schedules"] or [{"cron": None, "timezone": "UTC"}]
    (trigger,) = deployment.get("triggers") or [{"expect": [None]}]
    assert schedule["timezone"] == "UTC"
    return Deployment(
        flow=name,
        name=deployment["name"],
        entrypoint=deployment["entrypoint"],
        work_pool=deployment["work_pool"]["name"],
        concurrency_limit=deployment.get("concurrency_limit", {}).get("limit"),
        description=deployment["description"],
        cron=schedule["cron"],
        event=trigger["expect"][0],
    )


def test_prefect_yaml_says_what_served_says_and_every_flow_is_there() -> None:
    content = yaml.safe_load((files("esci_tournament.deployments") / "prefect.yaml").read_text(encoding="utf-8"))
    names = [load_flow_from_entrypoint(one["entrypoint"]).name for one in content["deployments"]]
    found = tuple(in_file(name, one) for name, one in zip(names, content["deployments"], strict=True))
    assert found == deployments_of(read_settings())


def test_the_schedule_is_that_of_the_settings(tmp_path: Path) -> None:
    settings = read_settings(home=tmp_path, weekly_cron="5 4 * * 3")
    content = yaml.safe_load(write_file(settings).read_text(encoding="utf-8"))
    assert [one["schedules"] for one in content["deployments"]] == [[], [], [{"cron": "5 4 * * 3", "timezone": "UTC"}]]


def test_reviews_wait_for_nobody() -> None:
    review = next(one for one in deployments_of(read_settings()) if one.flow == "review")
    assert review.concurrency_limit is None
    assert [one.flow for one in deployments_of(read_settings()) if one.work_pool == review.work_pool] == ["review"]


def facts(deployment: Any) -> tuple[Any, ...]:
    """Return what must be the same of a deployment, however it was put on the server."""
    limit = deployment.global_concurrency_limit
    schedules = [(one.schedule.cron, one.schedule.timezone, one.active) for one in deployment.schedules]
    return deployment.entrypoint, deployment.description, limit.limit if limit else None, schedules, deployment.paused


@pytest.mark.slow
def test_deploy_and_the_local_worker_put_the_same_on_a_real_server(
    prefect: PrefectServer, tournament: Any, tmp_path: Path
) -> None:
    settings = read_settings(home=tmp_path, weekly_cron="5 4 * * 3", gpu_slots=2)
    (tmp_path / "tournament.toml").write_text('weekly_cron = "5 4 * * 3"\ngpu_slots = 2\n', encoding="utf-8")

    async def on_server() -> dict[str, Any]:
        async with get_client() as client:
            found = {
                one.full_name: await client.read_deployment_by_name(one.full_name) for one in deployments_of(settings)
            }
            triggers = {
                name: [
                    (one.name, sorted(one.trigger.expect), one.enabled)
                    for one in await client.read_resource_related_automations(f"prefect.deployment.{deployment.id}")
                ]
                for name, deployment in found.items()
            }
            pools = {name: (await client.read_work_pool(name)).type for name in (HEAVY_POOL, LIGHT_POOL)}
            slots = (await client.read_global_concurrency_limit_by_name(GPU_LIMIT)).limit
            silent = [one.name for one in await client.read_automations() if "silent" in one.name]
            return {"found": found, "triggers": triggers, "pools": pools, "slots": slots, "silent": silent}

    async def serve() -> None:
        for one in deployments_of(settings):
            await as_deployment(one).aapply()

    with prefect.connected():
        answer = tournament(
            *("deploy", "--home", tmp_path, "--api", prefect.api, "--json"), cwd=tmp_path, **{CLIENT_AUTH: prefect.auth}
        )
        assert answer.code == 0, answer.err
        assert answer.document["deployments"] == [one.full_name for one in deployments_of(settings)]
        assert answer.document["work_pools_made"] == [HEAVY_POOL, LIGHT_POOL]
        assert prepare_server(settings, prefect.api) == []  # again changes nothing
        deployed = asyncio.run(on_server())
        assert deployed["pools"] == {HEAVY_POOL: "process", LIGHT_POOL: "process"}
        assert deployed["slots"] == 2
        assert len(deployed["silent"]) == 1
        for one in deployments_of(settings):
            assert deployed["found"][one.full_name].work_pool_name == one.work_pool
            assert deployed["found"][one.full_name].job_variables["env"] == heartbeat_environment()
        asyncio.run(serve())
        here = asyncio.run(on_server())
    for one in deployments_of(settings):
        assert facts(here["found"][one.full_name]) == facts(deployed["found"][one.full_name])
        assert here["triggers"][one.full_name] == deployed["triggers"][one.full_name]
