"""`tournament doctor`: settings and checks of this machine."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from esci_tournament.deployments.cli.doctor import Illness, check_notifications, check_prefect
from esci_tournament.deployments.stack.access import CLIENT_AUTH, authorization
from esci_tournament.deployments.stack.state import Process, State, write_state
from esci_tournament.registry.errors import ServiceError, UsageError
from esci_tournament.registry.settings import Settings, read_settings
from tests.deployments.conftest import Tournament

AUTH = "tournament:secret"


@pytest.mark.slow
def test_doctor_speaks_json(held, tournament):
    doctor = tournament("doctor", "--home", held.home, "--json")
    assert doctor.code == 0, doctor.err
    assert all(row["ok"] for row in doctor.document["checks"])
    compared = next(row["says"] for row in doctor.document["checks"] if row["check"] == "champion")
    assert "as in manifest" in compared
    assert compared.endswith("which was approved")


@pytest.fixture
def api() -> Iterator[str]:
    """The address of a server that asks for a password below /guarded, and for none elsewhere."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.headers.get("Authorization") == authorization(AUTH)["Authorization"]
            refused = self.path.startswith("/guarded/api/") and not known
            self.send_response(401 if refused else 404 if self.path.endswith("/nobody") else 200)
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
    with pytest.raises(Illness, match="refuses the password"):
        check_prefect(settings)


def test_a_server_that_asks_for_none_is_an_illness(
    settings: Settings, api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"{api}/api")
    with pytest.raises(Illness, match=r"asks for no password.*tournament up"):
        check_prefect(settings)


def test_a_block_that_is_not_there_is_an_illness_with_what_to_do(
    settings: Settings, api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that goes nowhere was noticed by a line in the worker's log alone."""
    named, nobody = (
        settings.model_copy(update={"notify_block": f"slack-webhook/{name}"}) for name in ("ops", "nobody")
    )
    assert "names no block" in check_notifications(settings)
    assert "not known" in check_notifications(named)
    monkeypatch.setenv("PREFECT_API_URL", f"{api}/guarded/api")
    monkeypatch.setenv(CLIENT_AUTH, AUTH)
    assert "which the server has" in check_notifications(named)
    with pytest.raises(Illness, match=r"no block 'slack-webhook/nobody'.*make it in the UI"):
        check_notifications(nobody)
    with pytest.raises(UsageError, match="not type/name"):
        check_notifications(settings.model_copy(update={"notify_block": "relevance"}))
    monkeypatch.setenv(CLIENT_AUTH, "tournament:another")
    with pytest.raises(ServiceError, match="answers with 401"):
        check_notifications(named)


def test_what_is_wrong_comes_first_each_cause_once_with_what_to_do(tournament: Tournament, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "ledger.db").write_bytes(b"not a database" * 100)
    said = {"TOURNAMENT_NOTIFY_BLOCK": "relevance", "TOURNAMENT_DATA": "/nowhere"}
    doctor = tournament("doctor", "--home", tmp_path / "home", **said)
    assert doctor.code == 1
    lines = doctor.out.splitlines()
    assert lines[0].endswith("checks failed:")
    marks = [line[:4] for line in lines if line[:4] in ("FAIL", "ok  ")]
    assert marks == sorted(marks)  # capitals come first
    (ledger,) = [line for line in lines if "not a database" in line]
    assert ledger.startswith("FAIL  ledger, ledger's chain: ")
    assert "to do: restore" in lines[lines.index(ledger) + 1]
    assert "FAIL  data: there is no folder /nowhere" in doctor.out
    assert "not type/name" in doctor.out


def test_settings_that_differ_are_shown_and_the_others_when_they_are_asked_for(
    tournament: Tournament, tmp_path: Path
) -> None:
    few = tournament("doctor", "--home", tmp_path, TOURNAMENT_BENCH_SIZE="3", TOURNAMENT_FOLDS="5")
    assert few.code == 0, few.err
    assert few.out.startswith("nothing is wrong:")
    assert "  bench_size = 3\n" in few.out
    assert "alpha" not in few.out
    assert "folds" not in few.out  # said, and the default
    everything = tournament("doctor", "--home", tmp_path, "--all", TOURNAMENT_BENCH_SIZE="3")
    assert "  alpha = 0.05  # chance that a home" in everything.out
    spoken = tournament("doctor", "--home", tmp_path, "--json").document
    assert set(Settings.model_fields) >= set(spoken["settings"]) > {"alpha", "folds"}


def test_a_home_that_is_not_there_is_not_made(tournament: Tournament, tmp_path: Path) -> None:
    """A mistyped --home was made, with a ledger and all."""
    home = tmp_path / "mistyped" / "home"
    doctor = tournament("doctor", "--home", home)
    assert doctor.code == 0, doctor.err
    assert f"{home}, " in doctor.out
    assert "it is not there yet" in doctor.out
    assert list(tmp_path.iterdir()) == []
