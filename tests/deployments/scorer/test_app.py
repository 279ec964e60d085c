"""The scorer's HTTP interface, called through its ASGI application."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest

from tests.deployments.scorer.conftest import NAMES, PAGE, ask, get


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"query": "  "}, "query"),
        ({"query": 3}, "query"),
        ({"locale": "fr"}, "locale"),
        ({"products": []}, "products"),
        ({"products": [{"id": "P1"}, {"title": 7}]}, "products.1.title"),
        ({"products": [{"name": "lamp"}]}, "products.0.name"),
        ({"want": "magic"}, "want"),
        ({"deadline_ms": 0}, "deadline_ms"),
        ({"deadline_ms": "50"}, "deadline_ms"),
        ({"dedline_ms": 50}, "dedline_ms"),
    ],
)
def test_a_wrong_field_is_named(stand, change, field):
    answer = ask(stand, {**PAGE, **change})[0]
    assert answer.status_code == 422
    assert field in [one["field"] for one in answer.json()["fields"]]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"\xff"', b"[" * 100_000, b'{"query": "\\ud800"}', b'{"query": NaN}']
)
def test_what_is_no_page_at_all_is_refused(stand, body):
    async def go():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(stand.app), base_url="http://scorer") as client:
            return await client.post("/v1/score", content=body, headers={"content-type": "application/json"})

    answer = stand.run(go())
    assert answer.status_code == 422
    assert answer.json()["error"] == "invalid_request"


@pytest.mark.scorer(body_mib=0.1)
def test_too_much_at_once_is_413(stand):
    many = ask(stand, {**PAGE, "products": [{"id": "P1"}] * 1001})[0]
    assert (many.status_code, many.json()["error"]) == (413, "too_many_products")
    large = ask(stand, {**PAGE, "query": "x" * 200_000})[0]
    assert (large.status_code, large.json()["error"]) == (413, "body_too_large")


def test_a_body_that_does_not_say_its_size_is_bounded_too(stand):
    async def endless():
        while True:
            yield b" " * 2**20

    async def go():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(stand.app), base_url="http://scorer") as client:
            return await client.post("/v1/score", content=endless(), headers={"content-type": "application/json"})

    assert stand.run(go()).status_code == 413


@pytest.mark.parametrize("headers", [{"content-type": "text/plain"}, {"content-encoding": "gzip"}])
def test_other_than_plain_json_is_415(stand, headers):
    assert ask(stand, PAGE, headers=headers)[0].status_code == 415


@pytest.mark.scorer(queued_pairs=1000)
def test_more_than_may_wait_is_429_and_says_when_to_come_back(stand):
    for name in NAMES:
        stand.candidate(name).delay_s = 0.3
    answers = ask(stand, *([{**PAGE, "products": PAGE["products"] * 10, "deadline_ms": 60_000}] * 4))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429]
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert int(refused.headers["retry-after"]) >= 1


def test_a_key_is_needed_once_there_is_one_and_has_its_rate(stand):
    assert ask(stand, PAGE)[0].status_code == 200
    _, text = stand.gate.keys.create("shop", rate_per_s=0.5)
    assert ask(stand, PAGE)[0].status_code == 401
    assert get(stand, "/metrics").status_code == 401
    assert get(stand, "/healthz").status_code == 200
    assert ask(stand, PAGE, headers={"x-api-key": text[:-1] + "_"})[0].status_code == 401
    assert ask(stand, PAGE, headers={"authorization": f"Bearer {text}"})[0].status_code == 200
    refused = ask(stand, PAGE, headers={"x-api-key": text})[0]
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 2
    stand.gate.keys.revoke("shop")
    assert ask(stand, PAGE, headers={"x-api-key": text})[0].status_code == 401


def test_without_a_champion_nothing_is_ready(stand):
    stand.scorer.active.champion = None
    answer = ask(stand, PAGE)[0]
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert get(stand, "/readyz").status_code == 503
    assert get(stand, "/v1/champion").status_code == 503
    assert get(stand, "/healthz").status_code == 200


@pytest.mark.scorer(member_timeout_s=0.5)
def test_a_member_that_hangs_is_left_out_and_shown(stand):
    stand.candidate("beta/1").free.clear()
    begun = time.monotonic()
    content = ask(stand, {**PAGE, "deadline_ms": 200})[0].json()
    assert time.monotonic() - begun < 10
    assert (content["complete"], content["missing"], content["members"]) == (False, ["beta/1"], ["alpha/1", "gamma/1"])
    assert all(one["label"] for one in content["products"])
    stand.run(asyncio.sleep(0.5))
    state = get(stand, "/readyz").json()
    assert [one["name"] for one in state["members"] if one["fenced"]] == ["beta/1"]
    assert 'scorer_member_failures_total{member="beta/1",reason="timeout"} 1.0' in get(stand, "/metrics").text
    begun = time.monotonic()  # now nobody waits for it
    assert ask(stand, PAGE)[0].json()["missing"] == ["beta/1"]
    assert time.monotonic() - begun < 1.9, "the deadline is 2 s"


def test_when_nobody_makes_it_the_page_says_so(stand):
    for name in NAMES:
        stand.candidate(name).delay_s = 0.5
    answer = ask(stand, {**PAGE, "deadline_ms": 50})[0]
    assert (answer.status_code, answer.json()["error"]) == (504, "deadline")


def test_who_serves_is_told(stand):
    content = get(stand, "/v1/champion").json()
    assert (content["version"], content["members"], content["products"]) == (1, list(NAMES), 300)


def test_unknown_paths_and_methods_are_problems_like_any_other(stand):
    assert get(stand, "/v2/score").json()["error"] == "not_found"
    answer = get(stand, "/v1/score")
    assert (answer.status_code, answer.json()["error"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"
