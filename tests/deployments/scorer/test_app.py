"""The scorer's HTTP interface, called through its ASGI application."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest

from esci_tournament.deployments.scorer.address import own_names
from esci_tournament.deployments.scorer.app import make_app
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
    content = ask(stand, {**PAGE, "deadline_ms": 2000})[0].json()  # the others make it on a busy machine, too
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


def test_when_the_keys_are_gone_or_damaged_nobody_is_let_in(stand):
    """S5.3, S5.4: it was open to all, or answered 500 while it said that it was ready."""
    _, text = stand.gate.keys.create("shop")
    with_key = {"headers": {"x-api-key": text}}
    assert ask(stand, PAGE, **with_key)[0].status_code == 200
    stand.gate.keys.file.unlink()
    assert ask(stand, PAGE)[0].status_code == 401
    stand.gate.keys.file.write_text("{")
    for answer in (ask(stand, PAGE, **with_key)[0], get(stand, "/metrics", **with_key), get(stand, "/v1/champion")):
        assert (answer.status_code, answer.json()["error"], answer.headers["retry-after"]) == (
            503,
            "keys_unreadable",
            "5",
        )
    ready = get(stand, "/readyz")
    assert (ready.status_code, ready.json()) == (503, {"ready": False})
    assert get(stand, "/healthz").status_code == 200


def test_without_a_key_little_is_told(stand):
    """S5.5: names of members, refusals and troubles were."""
    _, text = stand.gate.keys.create("shop")
    stand.following.trouble = "the ledger at db.internal is away"
    assert (get(stand, "/readyz").status_code, get(stand, "/readyz").json()) == (200, {"ready": True})
    for path in ("/openapi.json", "/docs", "/v1/champion", "/metrics"):
        assert get(stand, path).status_code == 401
    told = get(stand, "/readyz", headers={"x-api-key": text}).json()
    assert told["trouble"] == "the ledger at db.internal is away"
    assert [one["name"] for one in told["members"]] == list(NAMES)
    assert get(stand, "/openapi.json", headers={"x-api-key": text}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "127.0.0.1:8080"}, 200),
        ({"host": "localhost"}, 200),
        ({"host": "[::1]:8080"}, 200),
        ({"host": "scores.example"}, 200),
        ({"host": "evil"}, 403),
        ({"host": ""}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"host": "localhost", "origin": "https://evil.example"}, 403),
        ({"host": "localhost", "sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"}, 403),
    ],
)
def test_on_loopback_it_answers_under_its_own_names_and_to_no_page_of_another_site(stand, headers, status):
    """S4.3."""
    hosts = own_names(stand.scorer.settings.model_copy(update={"public_hosts": ("scores.example",)}), "127.0.0.1")
    app = make_app(stand.scorer, stand.gate, stand.following, hosts=hosts)

    async def go():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://scorer") as client:
            return [await client.get(path, headers=headers) for path in ("/healthz", "/v1/champion")]

    assert [answer.status_code for answer in stand.run(go())] == [status, status]


def test_a_client_that_hangs_up_while_it_sends_is_no_failure_of_the_scorer(stand, caplog):
    said = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        said.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/score", "query_string": b"", "http_version": "1.1"}
    stand.run(stand.app(scope | {"headers": [(b"content-type", b"application/json")]}, receive, send))
    assert said[0]["status"] == 499
    assert not caplog.records
