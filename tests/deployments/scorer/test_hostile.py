"""Requests that nobody would send in good faith: made by schemathesis from the OpenAPI document, and by hand."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
import schemathesis
import uvicorn
from hypothesis import given, settings
from schemathesis import GenerationMode

pytestmark = pytest.mark.slow


@pytest.fixture
def address(stand) -> Iterator[str]:
    """Where the scorer listens, over HTTP as anybody speaks to it."""
    server = uvicorn.Server(uvicorn.Config(stand.app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("path", ["/v1/score", "/v1/champion", "/readyz", "/healthz", "/metrics"])
def test_whatever_comes_is_answered_as_the_document_says(address, path, mode):
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    refusals = ["401", "408", "413", "415", "422", "429"]
    schema.config.checks.negative_data_rejection.expected_statuses = refusals
    # Who gives a page one millisecond is told that nobody made it, as the document says
    schema.config.checks.not_a_server_error.expected_statuses = ["2xx", "4xx", "504"]
    operation = next(one.ok() for one in schema.get_all_operations() if one.ok().path == path)
    if mode is GenerationMode.NEGATIVE and operation.method.upper() == "GET":
        pytest.skip("it takes nothing that could be wrong")

    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(case=operation.as_strategy(generation_mode=mode))
    def answers(case):
        case.call_and_validate()

    answers()


def test_two_hundred_clients_at_once_are_all_answered(stand):
    async def client(http: httpx.AsyncClient, number: int) -> list[int]:
        statuses = []
        for turn in range(3):
            products = [{"id": f"P{(number + turn + row) % 100}"} for row in range(20)]
            page = {"query": f"lamp {number % 17}", "locale": "us", "products": products, "deadline_ms": 60_000}
            statuses.append((await http.post("/v1/score", json=page)).status_code)
        return statuses

    async def go() -> list[list[int]]:
        transport = httpx.ASGITransport(stand.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://scorer", timeout=60) as http:
            return await asyncio.gather(*(client(http, number) for number in range(200)))

    statuses = [status for each in stand.run(go()) for status in each]
    assert len(statuses) == 600
    assert set(statuses) <= {200, 429}
    assert statuses.count(200) > 300
    batches = stand.candidate("alpha/1").calls
    assert sum(batches) / len(batches) > 40  # they were batched together
    assert stand.scorer.engine.admission.pairs == 0
