"""`tournament up`: errors before anything starts. That it runs is tested in `test_lifecycle.py`."""

from __future__ import annotations

import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from esci_tournament.deployments.stack.access import CLIENT_AUTH, SERVER_AUTH
from esci_tournament.deployments.stack.state import Process, State, write_state


def test_a_folder_that_is_not_there_is_named(tournament: Any, tmp_path: Path) -> None:
    answer = tournament("up", "--home", tmp_path / "home", "--data", tmp_path / "esci")
    assert answer.code == 3
    assert f"there is no folder {tmp_path / 'esci'}" in answer.err


def test_a_taken_port_is_named_before_anything_is_started(
    tournament: Any, tmp_path: Path, free_ports: list[int]
) -> None:
    prefect, mlflow, watcher = free_ports
    with socket.socket() as other:
        other.bind(("127.0.0.1", mlflow))
        other.listen()
        for more in ([], ["--detach"]):
            arguments = ("--prefect-port", prefect, "--mlflow-port", mlflow, "--watcher-port", watcher, *more)
            answer = tournament("up", "--home", tmp_path, *arguments)
            assert answer.code == 9
            assert f"port {mlflow}" in answer.err
            assert "mlflow_port" in answer.err
    assert not (tmp_path / "prefect").exists()


def test_a_home_that_is_a_file_is_named(tournament: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    answer = tournament("up", "--home", tmp_path / "file")
    assert answer.code == 8
    assert "cannot be written" in answer.err


def test_settings_that_ask_for_less_than_the_policy_are_named_before_anything_is_started(
    tournament: Any, tmp_path: Path
) -> None:
    said = tournament("policy", "set", "alpha=0.01", "--reason", "fewer promotions", "--home", tmp_path)
    assert said.code == 0, said.err
    (tmp_path / "tournament.toml").write_text("alpha = 0.5\n", encoding="utf-8")
    answer = tournament("up", "--home", tmp_path, cwd=tmp_path)
    assert answer.code == 12
    assert "setting alpha = 0.5, policy 0.01" in answer.err
    assert not (tmp_path / "prefect").exists()


def test_a_block_that_cannot_be_one_is_named_before_anything_is_started(tournament: Any, tmp_path: Path) -> None:
    answer = tournament("up", "--home", tmp_path, TOURNAMENT_NOTIFY_BLOCK="relevance")
    assert answer.code == 2
    assert "setting notify_block: 'relevance' is not type/name" in answer.err
    assert not (tmp_path / "prefect").exists()


@pytest.mark.parametrize(("status", "code", "kind"), [(404, 10, "NotFoundError"), (200, 0, None)])
def test_a_block_that_the_server_lacks_is_an_error_and_the_servers_run_on(
    tournament: Any, tmp_path: Path, status: int, code: int, kind: str | None
) -> None:
    """It was a line in the worker's log, and nobody was told of anything."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        api = f"http://127.0.0.1:{server.server_port}/api"
        (tmp_path / "stack").mkdir()
        write_state(tmp_path, State(supervisor=Process.of(os.getpid()), api=api, healthy=True))
        said = {"TOURNAMENT_NOTIFY_BLOCK": "slack-webhook/relevance", SERVER_AUTH: "a:b", CLIENT_AUTH: "a:b"}
        answer = tournament("up", "--home", tmp_path, "--no-link", "--json", **said)
        server.shutdown()
    assert answer.code == code, answer.err
    assert answer.document["prefect_api_url"] == api
    assert answer.document.get("kind") == kind
    assert ("make it in the UI" in answer.err) == bool(code)
