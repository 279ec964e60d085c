"""The Prefect server that the stack runs starts what is scheduled, and answers nobody but the home's own."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.client.schemas.schedules import CronSchedule
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from esci_tournament.deployments.browser_login import STORAGE_KEY
from esci_tournament.deployments.prefect_server import main, protect
from esci_tournament.deployments.stack.access import PASSWORD_FILE, SERVER_AUTH, authorization
from esci_tournament.deployments.stack.logins import LOGIN_PATH, login_folder, make_login
from tests.harness import PrefectServer


@pytest.mark.slow
def test_a_weekly_schedule_has_its_next_runs(prefect: PrefectServer) -> None:
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

    with prefect.connected():
        assert set(asyncio.run(scheduled())) == {"Mon 03:00 Scheduled"}


# Where the address of a page that speaks to the server may be; the middleware's own tests have more of them.
FOREIGN = ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Host": "evil.example:4200"})
OPEN = {("get", "/health"), ("get", "/ready")}  # probes, which say whether it is up and nothing else
WEBSOCKETS = (
    "/events/in",
    "/events/out",
    "/logs/out",
    "/task_runs/subscriptions/scheduled",
    "/work_pools/tournaments/workers/connect",
)


@pytest.fixture
def client(prefect: PrefectServer) -> Iterator[httpx.Client]:
    """Speaks to the server, and does not know its password."""
    with httpx.Client(base_url=prefect.api.removesuffix("/api"), timeout=30) as client:
        yield client


@pytest.mark.slow
def test_no_route_of_the_api_answers_without_the_password(prefect: PrefectServer, client: httpx.Client) -> None:
    paths = client.get("/api/openapi.json", headers=authorization(prefect.auth)).json()["paths"]
    asked = {(method, path) for path, methods in paths.items() for method in methods} - OPEN
    assert len(asked) > 150
    asked |= {("get", "/docs"), ("get", "/openapi.json"), ("get", "/admin/version"), ("post", "/health")}
    wrong = authorization(f"tournament:{'x' * 43}")
    for method, path in sorted(asked):
        assert client.request(method, f"/api{path}").status_code == 401, path
    assert client.get("/api/admin/version", headers=wrong).status_code == 401
    assert client.get("/api/admin/version", headers=authorization(prefect.auth)).status_code == 200
    assert client.get("/api/health").status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("path", WEBSOCKETS)
def test_no_websocket_is_served_without_the_password_or_to_a_foreign_page(prefect: PrefectServer, path: str) -> None:
    address = prefect.api.replace("http://", "ws://") + path

    async def closed(**options: object) -> None:
        async with connect(address, subprotocols=["prefect"], **options) as socket:
            await socket.send(json.dumps({"type": "auth", "token": "a guess"}))
            await asyncio.wait_for(socket.wait_closed(), 10)
            with pytest.raises(ConnectionClosed):
                await socket.recv()

    async def refused(**options: object) -> None:
        with pytest.raises(InvalidStatus) as refusal:
            async with connect(address, **options):
                pass
        assert refusal.value.response.status_code == 403

    asyncio.run(closed())
    asyncio.run(refused())  # a client of old, which sends no password
    asyncio.run(refused(subprotocols=["prefect"], origin="https://evil.example"))


@pytest.mark.slow
@pytest.mark.parametrize("foreign", FOREIGN, ids=str)
def test_a_foreign_page_is_refused_even_with_the_password(
    prefect: PrefectServer, client: httpx.Client, foreign: dict[str, str]
) -> None:
    headers = authorization(prefect.auth) | foreign
    for answer in (
        client.post("/api/flow_runs/filter", json={}, headers=headers),
        client.get("/api/admin/version", headers=headers),
        client.get("/ui-settings", headers=headers),
        client.post(LOGIN_PATH, json={"token": make_login(login_folder(prefect.settings.home))}, headers=headers),
        client.options("/api/flow_runs/filter", headers=headers | {"Access-Control-Request-Method": "POST"}),
    ):
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.slow
def test_its_own_pages_and_programs_are_answered(prefect: PrefectServer, client: httpx.Client) -> None:
    own = prefect.api.removesuffix("/api")
    headers = authorization(prefect.auth)
    page = {"Origin": own, "Sec-Fetch-Site": "same-origin"}
    answer = client.post("/api/flow_runs/filter", json={}, headers=headers | page)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == own
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert client.get("/v2/runs", headers=link | {"Accept": "text/html"}).status_code == 200
    settings = client.get("/ui-settings").json()
    assert (settings["auth"], settings["api_url"]) == ("BASIC", "/api")


@pytest.mark.slow
def test_a_one_time_login_gives_prefects_pages_what_they_look_for(prefect: PrefectServer, client: httpx.Client) -> None:
    token = make_login(login_folder(prefect.settings.home))
    assert f'"{STORAGE_KEY}"' in client.get(LOGIN_PATH).text
    given = client.post(LOGIN_PATH, json={"token": token}).json()["password"]
    assert client.get("/api/admin/version", headers={"Authorization": f"Basic {given}"}).status_code == 200
    assert client.post(LOGIN_PATH, json={"token": token}).status_code == 403


def test_prefects_bundled_pages_keep_the_password_under_that_key() -> None:
    import prefect

    for place in (prefect.__ui_static_path__, prefect.__ui_v2_static_path__):
        scripts = place.rglob("*.js")
        assert any(f"`{STORAGE_KEY}`" in script.read_text(encoding="utf-8") for script in scripts)


@pytest.mark.slow
def test_no_page_loads_scripts_of_another_host(client: httpx.Client) -> None:
    for path in ("/docs", "/redoc", "/docs/", "/docs/oauth2-redirect"):
        assert client.get(path).status_code == 404
    assert "script-src 'self'" in client.get("/v2/").headers["content-security-policy"]


@pytest.mark.slow
def test_the_password_stands_in_no_process_list_no_log_and_no_file_but_its_own(prefect: PrefectServer) -> None:
    secret = prefect.auth.partition(":")[2]
    lines = [" ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"])]
    assert any("prefect_server" in line for line in lines)
    assert not any(secret in line for line in lines)
    holds = {
        path.relative_to(prefect.folder).as_posix()
        for path in prefect.folder.rglob("*")
        if path.is_file() and secret.encode() in path.read_bytes()
    }
    assert holds == {f"stack/{PASSWORD_FILE}"}


async def prefects(scope: Scope, receive: Receive, send: Send) -> None:
    """Stand in for Prefect's application."""
    await PlainTextResponse("Prefect's")(scope, receive, send)


def test_what_stands_before_prefect_is_asked_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVER_AUTH, "tournament:secret")
    client = TestClient(protect(prefects, "127.0.0.1", 4200, tmp_path), base_url="http://127.0.0.1:4200")
    assert client.get("/api/health").text == "Prefect's"
    assert client.get("/docs").status_code == 404
    token = {"token": make_login(tmp_path)}
    assert client.post(LOGIN_PATH, json=token, headers={"Origin": "https://evil.example"}).status_code == 403
    assert client.post(LOGIN_PATH, json=token).status_code == 200
    without = TestClient(protect(prefects, "127.0.0.1", 4200, None), base_url="http://127.0.0.1:4200")
    assert without.get(LOGIN_PATH).text == "Prefect's"


@pytest.mark.parametrize("more", [["--workers", "2"], ["--workers=2"], ["--background"], ["-b"]])
def test_processes_that_would_not_be_protected_are_not_started(more: list[str]) -> None:
    with pytest.raises(SystemExit, match="without what is added here"):
        main(["start", "--port", "1", *more])
