"""Who may speak to a local server: its own pages and programs, under its own names."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from esci_tournament.deployments.same_origin import SameOrigin, own_hosts, own_origins

HERE = "http://127.0.0.1:4200"
LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


async def greet(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text("hello")
    await websocket.close()


def client_of(host: str = "127.0.0.1", address: str = HERE, **given: str) -> TestClient:
    """Return a client of a small application that is protected as one that listens on `host`, port 4200."""
    methods = ["GET", "POST", "OPTIONS"]
    app = Starlette(
        routes=[
            Route("/v2/", lambda _: HTMLResponse("a page"), methods=methods),
            Route("/api/runs", lambda _: PlainTextResponse("done"), methods=methods),
            WebSocketRoute("/api/events/in", greet),
        ]
    )
    origins = own_origins(host, 4200, given)
    return TestClient(SameOrigin(app, origins, own_hosts(host, origins)), base_url=address)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": HERE},
        {"Origin": HERE, "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Host": "localhost:4200", "Origin": "http://localhost:4200"},
        {"Host": "localhost:9000", "Origin": "http://localhost:9000"},  # through a tunnel
        {"Host": "[::1]:4200"},
    ],
)
def test_programs_and_own_pages_are_let_in(headers: dict[str, str]) -> None:
    assert client_of().post("/api/runs", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://127.0.0.1:3000"},  # another program's page on this machine
        {"Origin": "http://127.0.0.1:42000"},
        {"Origin": "http://127.0.0.1:4200.evil.example"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        LINK,
        {"Host": "evil.example"},
        {"Host": "evil.example:4200", "Origin": "http://evil.example:4200"},  # a name that resolves to this machine
        {"Host": "127.0.0.1.evil.example:4200"},
        {"Host": "evil.example@127.0.0.1:4200"},
        {"Host": ""},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_foreign_pages_and_names_are_refused(method: str, headers: dict[str, str]) -> None:
    answer = client_of().request(method, "/api/runs", headers=headers)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
    assert "done" not in answer.text


def test_a_link_elsewhere_leads_to_a_page_and_to_nothing_else() -> None:
    client = client_of()
    assert client.get("/v2/", headers=LINK).text == "a page"
    assert client.post("/v2/", headers=LINK).status_code == 403
    assert client.get("/v2/", headers=LINK | {"Sec-Fetch-Dest": "iframe"}).status_code == 403
    assert client.get("/v2/", headers=LINK | {"Sec-Fetch-Mode": "no-cors"}).status_code == 403


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Host": "evil.example:4200"}, {"Sec-Fetch-Site": "same-site"}]
)
def test_websockets_of_foreign_pages_are_not_opened(headers: dict[str, str]) -> None:
    client = client_of()
    with client.websocket_connect("/api/events/in", headers={"Origin": HERE, "Host": "127.0.0.1:4200"}) as socket:
        assert socket.receive_text() == "hello"
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/api/events/in", headers=headers):
        pass


def test_what_an_operator_names_is_let_in() -> None:
    named = {
        "PREFECT_UI_URL": "https://prefect.example.com",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": "https://a.example",
    }
    client = client_of(**named)
    for origin in ("https://prefect.example.com", "https://a.example"):
        assert client.post("/api/runs", headers={"Origin": origin}).status_code == 200
    proxied = {"Host": "prefect.example.com", "Origin": "https://prefect.example.com"}
    assert client.post("/api/runs", headers=proxied).status_code == 200
    assert client.post("/api/runs", headers={"Origin": "https://evil.example"}).status_code == 403
    everybody = client_of(PREFECT_SERVER_CORS_ALLOWED_ORIGINS="*")
    assert everybody.post("/api/runs", headers={"Origin": "https://evil.example"}).status_code == 200


def test_a_server_on_the_other_loopback_address_is_the_same() -> None:
    client = client_of("::1", "http://[::1]:4200")
    assert client.post("/api/runs", headers={"Origin": "http://[::1]:4200"}).status_code == 200
    assert client.post("/api/runs", headers={"Host": "[fe80::1]:4200"}).status_code == 403


def test_a_server_that_other_machines_reach_has_any_name_and_refuses_foreign_pages() -> None:
    client = client_of("0.0.0.0", "http://gpu-7.example:4200")
    assert client.post("/api/runs", headers={"Origin": "http://gpu-7.example:4200"}).status_code == 200
    assert client.post("/api/runs", headers={"Origin": "https://evil.example"}).status_code == 403


def test_pages_run_no_script_of_another_host_and_stand_in_no_frame() -> None:
    headers = client_of().get("/v2/").headers
    assert "script-src 'self'" in headers["content-security-policy"]
    assert "default-src 'self'" in headers["content-security-policy"]
    assert f"connect-src 'self' {HERE} ws://127.0.0.1:4200;" in headers["content-security-policy"]
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
