"""What happened is told to Prefect as an event, and nothing fails for want of a listener."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from esci_tournament.flows import announce as announcing
from esci_tournament.flows.announce import announce, for_browsers, quiet
from tests.flows.conftest import Refusing, http_server


def test_a_message_calls_nobody_and_hides_no_address() -> None:
    """R2.10: the key of a spec, which a complaint quotes, stood raw in notifications."""
    key = (
        "unknown key <!channel> <https://evil.example|Approve here> [Approve](https://evil.example) @here @Everyone\x1b"
    )
    said = quiet(key)
    assert not {"<", ">", "\x1b"} & set(said)
    for live in ("https://", "](", "@here", "@Everyone"):
        assert live not in said
    assert "evil.example" in said
    assert quiet("plain words of ana@example.org, 3 < 4\nand more") == "plain words of ana@example.org, 3 ‹ 4\nand more"
    assert len(quiet("x" * 100_000)) == 4000


def test_links_open_in_a_browser_and_what_does_not_is_said_in_words(announced: list[dict[str, Any]]) -> None:
    """Whoever reads a message sits at another machine than the worker."""
    web = "https://mlflow.example/#/experiments/1/runs/2"
    nowhere = {
        "Full report": "/var/lib/tournament/tournaments/t-1/report.html",
        "MLflow version": "models:/esci-ensemble/3",
        "Store": "sqlite:////var/lib/tournament/mlflow.db",
        "Page": "file:///var/lib/tournament/tournaments/t-1/report.html",
        "Review": "tournament review show 12",
        "Nothing": "",
    }
    assert announce("verdict", "t-1", {"text": "it is better", "links": {"MLflow run": web} | nowhere}) is True
    [event] = announced
    assert event["payload"]["links"] == {"MLflow run": web}
    text = event["payload"]["text"]
    assert text.startswith("it is better\n")
    for absent in ("/var/", "models:", "sqlite", "file:", "Nothing"):
        assert absent not in text
    for said in (
        f"Full report: on the machine {socket.gethostname()}.",
        "MLflow version: version 3 of esci-ensemble.",
        "Review: run `tournament review show 12`.",
    ):
        assert said in text


def test_links_of_a_server_on_loopback_are_said_to_open_there_alone_and_show_no_password() -> None:
    for host in ("127.0.0.1", "localhost", "[::1]"):
        web, said = for_browsers({"MLflow run": f"http://ana:secret@{host}:5000/#/x"})
        assert web == {"MLflow run": f"http://ana:***@{host}:5000/#/x"}
        assert socket.gethostname() in said[0]
    assert for_browsers({"Flow run": "https://prefect.example/v2/runs"})[1] == []


def test_words_on_links_are_kept_though_the_text_is_long(announced: list[dict[str, Any]]) -> None:
    announce("failure", "a/1", {"text": "x" * 10_000, "links": {"Full report": "tournament report t-1"}})
    assert announced[0]["payload"]["text"].endswith("Full report: run `tournament report t-1`.")
    assert len(announced[0]["payload"]["text"]) <= 4000


def test_without_a_server_announcing_does_nothing() -> None:
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        assert announce("verdict", "t-1") is False


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait before another try."""
    monkeypatch.setattr(announcing, "TRIES_S", (0.0, 0.0))


@pytest.fixture
def restarted(at_once: None) -> Iterator[list[dict[str, Any]]]:
    """A server that cannot take the first event that it is sent, and keeps those that come after."""
    taken: list[dict[str, Any]] = []
    tries = iter([500])

    class Handler(Refusing):
        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = next(tries, 204)
            if status == 204:
                taken.extend(content)
            self.send_response(status)
            self.end_headers()

        def do_GET(self) -> None:  # whether it wants a token, which it does not
            self.send_response(404)
            self.end_headers()

    with http_server(Handler) as address, temporary_settings({PREFECT_API_URL: address}):
        yield taken


def test_a_server_that_is_being_restarted_is_told_once_it_is_back(restarted: list[dict[str, Any]]) -> None:
    assert announce("promotion", "esci-ensemble/3", {"text": "it is better", "version": 3}) is True
    [event] = restarted
    assert event["event"] == "tournament.promotion"
    assert event["resource"]["prefect.resource.id"] == "esci-tournament.esci-ensemble/3"
    assert event["resource"]["prefect.resource.role"] == "promotion"
    expected = {"title": "promotion: esci-ensemble/3", "text": "it is better", "links": {}, "version": 3}
    assert event["payload"] == expected


def test_what_a_message_quotes_is_no_link_and_no_mention(restarted: list[dict[str, Any]]) -> None:
    """R2.10."""
    assert announce("failure", "a/1", {"text": "unknown key '<!channel> <https://evil.example|Approve>'"}) is True
    [event] = restarted
    assert "<" not in event["payload"]["text"]
    assert "://" not in event["payload"]["text"]


def test_a_server_that_takes_nothing_keeps_nobody_from_going_on(at_once: None, broken_api: str) -> None:
    with temporary_settings({PREFECT_API_URL: broken_api}):
        assert announce("failure", "a/1") is False


def test_what_cannot_be_told_is_not_worth_an_error(restarted: list[dict[str, Any]]) -> None:
    assert announce("verdict", "t-1", {"text": object()}) is False
    assert restarted == []
