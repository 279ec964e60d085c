"""The client: typed answers, retries when the scorer asks for them, clear errors when it is unreachable."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest

from esci_tournament.deployments.scorer.client import AsyncClient, Client, Patience, ScorerError
from esci_tournament.registry.errors import UsageError

GOOD = {
    "champion": {"name": "esci-ensemble", "version": 3},
    "products": [
        {"id": "P1", "label": "E", "probabilities": {"E": 1.0, "S": 0.0, "C": 0.0, "I": 0.0}, "cached": True},
        {"id": "P2", "label": None, "cached": False, "error": {"code": "unknown_product", "message": "no"}},
    ],
    "members": [], "missing": [], "complete": True, "cache_hits": 1, "milliseconds": 0.4,
}  # fmt: skip


def answering(*answers: httpx.Response | Exception, calls: list[httpx.Request]) -> httpx.MockTransport:
    waiting = list(answers)

    def handle(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        answer = waiting.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return httpx.MockTransport(handle)


def busy(status: int, **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"error": "too_many_requests", "message": "later"}, headers=headers)


def test_an_answer_is_typed_and_the_key_is_sent():
    calls: list[httpx.Request] = []
    with Client("http://s", key="esci_1", transport=answering(httpx.Response(200, json=GOOD), calls=calls)) as client:
        page = client.score("lamp", "us", ["P1", {"title": "lamp"}], deadline_ms=50)
    assert (page.champion, page.complete, page.cache_hits) == ("esci-ensemble/3", True, 1)
    assert [(one.id, one.label, one.error) for one in page.products] == [("P1", "E", ""), ("P2", "", "unknown_product")]
    assert calls[0].headers["authorization"] == "Bearer esci_1"
    assert b'"products":[{"id":"P1"},{"title":"lamp"}]' in calls[0].content


def test_it_waits_as_long_as_it_is_told_and_then_has_its_answer():
    calls: list[httpx.Request] = []
    answers = busy(429, **{"retry-after": "1"}), busy(503), httpx.ConnectError("down"), httpx.Response(200, json=GOOD)
    begun = time.monotonic()
    with Client("http://s", patience=Patience(4, 0.01), transport=answering(*answers, calls=calls)) as client:
        client.score("lamp", "us", ["P1"])
    assert len(calls) == 4
    assert 1 <= time.monotonic() - begun < 30


def test_patience_has_an_end():
    calls: list[httpx.Request] = []
    transport = answering(busy(503), busy(503), calls=calls)
    with (
        Client("http://s", patience=Patience(2, 0.01), transport=transport) as client,
        pytest.raises(ScorerError, match="503 too_many_requests: later") as raised,
    ):
        client.champion()
    assert (raised.value.status, len(calls)) == (503, 2)
    with (
        Client(
            "http://s", patience=Patience(1), transport=answering(httpx.ConnectError("down"), calls=calls)
        ) as client,
        pytest.raises(ScorerError, match="does the scorer run"),
    ):
        client.champion()


def test_a_wrong_request_is_not_sent_twice(stand):
    async def go() -> None:
        async with AsyncClient("http://s", transport=httpx.ASGITransport(stand.app)) as client:
            page = await client.score("lamp", "us", ["P1", "P2"], want="contributions")
            assert set(page.products[0].contributions) == set(page.members)
            assert (await client.champion())["version"] == 1
            assert await client.ready()
            with pytest.raises(UsageError, match=r"422 invalid_request: field locale"):
                await client.score("lamp", "fr", ["P1"])

    asyncio.run(go())
