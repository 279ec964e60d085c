"""Announcements of flows arrive at a webhook, through a real Prefect server."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from prefect import flow
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client
from prefect.states import Crashed

from esci_tournament.deployments import worker
from esci_tournament.deployments.notifications import PREFIX
from esci_tournament.deployments.prefect_setup import prepare
from esci_tournament.flows.announce import announce
from esci_tournament.registry.errors import NotFoundError, UsageError
from esci_tournament.registry.settings import Settings, read_settings
from tests.harness import PrefectServer

pytestmark = pytest.mark.slow

Inbox = list[dict[str, str]]


@pytest.fixture(scope="module")
def mailbox() -> Iterator[tuple[str, Inbox]]:
    """An HTTP server on loopback that keeps what is posted to it."""
    received: Inbox = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", received
    server.shutdown()


@pytest.fixture
def connected(prefect: PrefectServer) -> Iterator[None]:
    with prefect.connected():
        yield


def kill_a_run(name: str) -> None:
    """Have Prefect say that a run of a flow has crashed."""

    @flow(name=name)
    def of_that_name() -> None: ...

    async def work() -> None:
        async with get_client() as client:
            run = await client.create_flow_run(of_that_name, name="quiet-heron")
            await client.set_flow_run_state(run.id, Crashed(message="its machine is gone"), force=True)

    asyncio.run(work())


def apply(settings: Settings) -> list[str]:
    """Prepare the server and return the names of its automations that tell somebody."""

    async def work() -> list[str]:
        async with get_client() as client:
            await prepare(client, settings)
            return sorted(one.name for one in await client.read_automations() if one.name.startswith(PREFIX))

    return asyncio.run(work())


def test_every_kind_of_event_and_a_crash_are_told_once_with_links(
    connected: None, mailbox: tuple[str, Inbox], tmp_path: Path
) -> None:
    address, received = mailbox
    block = CustomWebhookNotificationBlock(
        name="mailbox", url=address, json_data={"subject": "{{subject}}", "body": "{{body}}"}
    )
    block.save("relevance", overwrite=True)
    settings = read_settings(home=tmp_path, notify_block="custom-webhook/relevance")
    assert apply(settings) == apply(settings)  # applied again it is not sent twice
    time.sleep(2)  # the server reads new automations into memory beside answering

    kill_a_run("review")
    kill_a_run("somebody-else")
    kinds = ("verdict", "review", "promotion", "failure")
    for kind in kinds:
        links = {"report": f"https://reports.example/{kind}.html"}
        assert announce(kind, "esci-ensemble/3", {"title": f"a {kind}", "text": f"what a {kind} is", "links": links})
    end = time.monotonic() + 30
    while len(received) <= len(kinds) and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(1)
    told = {message["subject"]: message["body"] for message in received}
    expected = [*(f"a {kind}" for kind in kinds), "review quiet-heron: Crashed"]
    assert sorted(message["subject"] for message in received) == sorted(expected)
    assert told["a verdict"].startswith("what a verdict is")
    assert "report: https://reports.example/verdict.html" in told["a verdict"]
    assert told["review quiet-heron: Crashed"].startswith("its machine is gone")
    assert "/runs/flow-run/" in told["review quiet-heron: Crashed"]


def test_without_the_setting_nobody_is_told(connected: None, tmp_path: Path) -> None:
    assert apply(read_settings(home=tmp_path)) == []


def test_a_block_that_is_not_there_is_named(connected: None, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no block 'slack-webhook/nobody'"):
        apply(read_settings(home=tmp_path, notify_block="slack-webhook/nobody"))
    with pytest.raises(UsageError, match="not type/name"):
        apply(read_settings(home=tmp_path, notify_block="relevance"))


def test_a_block_that_is_made_later_is_taken_up(
    connected: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block is made in the UI of the server that `tournament up` starts: after the worker has looked for it."""
    monkeypatch.setattr(worker, "BLOCK_S", 0.3)
    settings = read_settings(home=tmp_path, notify_block="custom-webhook/made-later")

    async def story() -> list[str]:
        async with get_client() as client:
            assert await worker._prepared(client, settings) is False
            preparing = asyncio.create_task(worker._until_prepared(settings))
            await asyncio.sleep(1)
            assert not preparing.done()
            block = CustomWebhookNotificationBlock(name="later", url="http://127.0.0.1:9/", json_data={})
            await asyncio.to_thread(block.save, "made-later", overwrite=True)
            await asyncio.wait_for(preparing, 20)
            return [one.name for one in await client.read_automations() if one.name.startswith(PREFIX)]

    assert len(asyncio.run(story())) == 5
