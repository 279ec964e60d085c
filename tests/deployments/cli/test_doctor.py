"""`tournament doctor`: settings and checks of this machine."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from esci_tournament.deployments.cli.doctor import check_prefect
from esci_tournament.deployments.stack.access import CLIENT_AUTH, authorization
from esci_tournament.deployments.stack.state import Process, State, write_state
from esci_tournament.registry.settings import Settings, read_settings

AUTH = "tournament:secret"


@pytest.mark.slow
def test_doctor_speaks_json(held, tournament):
    doctor = tournament("doctor", "--home", held.home, "--json")
    assert doctor.code == 0, doctor.err
    assert all(row["ok"] for row in doctor.document["checks"])
    compared = next(row["says"] for row in doctor.document["checks"] if row["check"] == "champion")
    assert "are those of manifest" in compared
    assert compared.endswith("which was approved")


@pytest.fixture
def api() -> Iterator[str]:
    """The address of a server that asks for a password below /guarded, and for none elsewhere."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.headers.get("Authorization") == authorization(AUTH)["Authorization"]
            self.send_response(200 if known or not self.path.startswith("/guarded/api/") else 401)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in ("PREFECT_API_URL", "PREFECT_SERVER_API_AUTH_STRING", CLIENT_AUTH):
        monkeypatch.delenv(name, raising=False)
    return read_settings(home=tmp_path)


def test_it_says_that_the_homes_server_asks_for_a_password(
    settings: Settings, api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no server runs" in check_prefect(settings)
    write_state(settings.home, State(supervisor=Process.of(os.getpid()), api=f"{api}/guarded/api"))
    monkeypatch.setenv(CLIENT_AUTH, AUTH)
    assert "asks for a password, and commands know it" in check_prefect(settings)
    monkeypatch.setenv(CLIENT_AUTH, "tournament:another")
    with pytest.raises(RuntimeError, match="refuses the password"):
        check_prefect(settings)


def test_a_server_that_asks_for_none_is_an_illness(
    settings: Settings, api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"{api}/api")
    with pytest.raises(RuntimeError, match=r"asks for no password.*tournament up"):
        check_prefect(settings)
