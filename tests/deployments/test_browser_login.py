"""A one-time login, asked for as a browser's page does it."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from esci_tournament.deployments.browser_login import HEADERS, PAGE, SCRIPT, BrowserLogin
from esci_tournament.deployments.stack.logins import LOGIN_PATH, make_login

AUTH = "tournament:the password"


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    return TestClient(BrowserLogin(PlainTextResponse("Prefect"), tmp_path, AUTH))


def test_the_page_has_no_secret_and_asking_for_it_uses_nothing_up(client: TestClient, tmp_path: Path) -> None:
    token = make_login(tmp_path)
    for method in ("GET", "HEAD", "GET"):
        answer = client.request(method, LOGIN_PATH)
        assert answer.status_code == 200
    assert answer.text == PAGE
    assert base64.b64encode(AUTH.encode()).decode() not in answer.text
    assert client.post(LOGIN_PATH, json={"token": token}).status_code == 200


def test_a_token_is_good_for_the_password_once(client: TestClient, tmp_path: Path) -> None:
    token = make_login(tmp_path)
    answer = client.post(LOGIN_PATH, json={"token": token})
    assert base64.b64decode(answer.json()["password"]).decode() == AUTH
    again = client.post(LOGIN_PATH, json={"token": token})
    assert again.status_code == 403
    assert "tournament login" in again.json()["detail"]
    assert "password" not in again.json()


def test_of_many_requests_at_once_one_gets_the_password(client: TestClient, tmp_path: Path) -> None:
    token = make_login(tmp_path)
    with ThreadPoolExecutor(16) as pool:
        codes = list(pool.map(lambda _: client.post(LOGIN_PATH, json={"token": token}).status_code, range(48)))
    assert sorted(codes) == [200] + 47 * [403]


def test_a_token_that_has_ended_is_refused_in_words(client: TestClient, tmp_path: Path) -> None:
    answer = client.post(LOGIN_PATH, json={"token": make_login(tmp_path, seconds=-1)})
    assert answer.status_code == 403
    assert "older than 10 minutes" in answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b"null", b'{"token": 7}', b'{"token": ""}', b'{"token": "../prefect.password"}', b"\xff"],
)
def test_what_is_no_token_is_refused(client: TestClient, body: bytes) -> None:
    assert client.post(LOGIN_PATH, content=body).status_code == 403


def test_other_methods_and_long_bodies_are_refused(client: TestClient) -> None:
    assert client.put(LOGIN_PATH).status_code == 405
    assert client.post(LOGIN_PATH, content=b"x" * 5_000).status_code == 413


def test_no_answer_is_kept_or_told_of_elsewhere(client: TestClient, tmp_path: Path) -> None:
    token = make_login(tmp_path)
    for answer in (client.get(LOGIN_PATH), *(client.post(LOGIN_PATH, json={"token": token}) for _ in range(2))):
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert f"<script>{SCRIPT}</script>" in PAGE  # what the policy's digest is of
    assert "unsafe" not in HEADERS["Content-Security-Policy"]


def test_everything_else_is_prefects(client: TestClient) -> None:
    assert client.get("/v2/").text == "Prefect"
    assert client.post("/api/runs").text == "Prefect"
