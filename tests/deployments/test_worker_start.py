"""A worker waits for a Prefect server that is being restarted."""

from __future__ import annotations

import asyncio
import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from prefect.client.orchestration import PrefectClient

from esci_tournament.deployments.worker import until_it_answers
from tests.harness import free_port


@contextmanager
def answering(port: int, status: int, after_s: float = 0.0) -> Iterator[None]:
    """Answer every request with one status, from some seconds on."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    class Late(threading.Thread):
        server: http.server.HTTPServer | None = None

        def run(self) -> None:
            time.sleep(after_s)
            self.server = http.server.HTTPServer(("127.0.0.1", port), Handler)
            self.server.serve_forever()

    late = Late(daemon=True)
    late.start()
    yield
    assert late.server is not None
    late.server.shutdown()
    late.server.server_close()


def wait(port: int, seconds: float) -> None:
    async def story() -> None:
        async with PrefectClient(f"http://127.0.0.1:{port}/api") as client:
            await until_it_answers(client, seconds)

    asyncio.run(story())


def test_a_server_that_comes_back_is_waited_for() -> None:
    port = free_port()
    with answering(port, 200, after_s=0.7):
        wait(port, 20.0)


def test_one_that_stays_away_is_given_up() -> None:
    with pytest.raises(httpx.ConnectError):
        wait(free_port(), 0.6)


def test_one_that_wants_another_password_is_not_waited_for() -> None:
    port = free_port()
    with answering(port, 401):
        time.sleep(0.2)
        with pytest.raises(httpx.HTTPStatusError):
            wait(port, 20.0)
