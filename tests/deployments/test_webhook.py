"""Only authentic, fresh and new deliveries trigger a poll; their content is not trusted."""

from __future__ import annotations

import json
import time

import pytest
from fastapi.testclient import TestClient

from esci_tournament.deployments.connections import LimitedProtocol
from esci_tournament.deployments.watcher import Watcher, listen
from esci_tournament.deployments.webhook import (
    DELIVERY,
    LARGEST_BYTES,
    PATH,
    SIGNATURE,
    TIMESTAMP,
    Guard,
    make_app,
    sign,
)
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.versions import SPEC_TAG

SECRET = "between the two of us"


def event(entity: str = "model_version", action: str = "created", **data: object) -> bytes:
    return json.dumps({"entity": entity, "action": action, "data": {"name": "sage", "version": "3"} | data}).encode()


def delivery(body: bytes, id: str = "one", age_s: float = 0.0, secret: str = SECRET) -> dict[str, str]:
    timestamp = str(int(time.time() - age_s))
    return {DELIVERY: id, TIMESTAMP: timestamp, SIGNATURE: sign(secret, id, timestamp, body)}


@pytest.fixture
def woken() -> list[str]:
    return []


@pytest.fixture
def receiver(woken: list[str]) -> TestClient:
    return TestClient(
        make_app(
            Guard(SECRET, age_s=300), woken.append, lambda: {"status": "ok"}, lambda: b"watcher_sweeps_total 3.0\n"
        )
    )


def test_a_genuine_event_wakes_once_and_its_replay_is_refused(receiver, woken):
    body = event()
    headers = delivery(body)
    assert receiver.post(PATH, content=body, headers=headers).status_code == 202
    answer = receiver.post(PATH, content=body, headers=headers)
    assert (answer.status_code, woken) == (401, ["sage/3"])
    assert "received before" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("headers", "complaint"),
    [
        ({}, "are required"),
        (delivery(event(), secret="a guess"), "signature is wrong"),
        (delivery(event(name="another")), "signature is wrong"),
        (delivery(event()) | {DELIVERY: "two"}, "signature is wrong"),
        (delivery(event()) | {TIMESTAMP: "1"}, "signature is wrong"),
        (delivery(event()) | {SIGNATURE: "v1,ü".encode().decode("latin-1")}, "signature is wrong"),
        (delivery(event(), age_s=3600), "older than 300 s"),
        (delivery(event(), age_s=-36_000), "older than 300 s"),
        ({DELIVERY: "x", TIMESTAMP: "soon", SIGNATURE: sign(SECRET, "x", "soon", event())}, "not a number of seconds"),
    ],
)
def test_forged_changed_and_stale_deliveries_are_refused(receiver, woken, headers, complaint):
    answer = receiver.post(
        PATH, content=event(), headers={key: value.encode("latin-1") for key, value in headers.items()}
    )
    assert (answer.status_code, woken) == (401, [])
    assert complaint in answer.json()["detail"]


def test_a_refused_delivery_does_not_use_up_its_id(receiver, woken):
    body = event()
    receiver.post(PATH, content=body, headers=delivery(body, secret="a guess"))
    receiver.post(PATH, content=body, headers=delivery(body))
    assert woken == ["sage/3"]


def test_only_events_that_a_candidate_can_come_of_wake(receiver, woken):
    bodies = [
        event("model_version_tag", "set", key=SPEC_TAG, value="{}"),
        event("model_version_tag", "set", key="tournament.state", value="queued"),  # our own
        event("registered_model", "created"),
        event(version="no number"),
        b"no json",
        b"[]",
        b'{"entity": "model_version", "action": "created", "data": null}',
    ]
    for number, body in enumerate(bodies):
        assert receiver.post(PATH, content=body, headers=delivery(body, f"id-{number}")).status_code == 202
    assert woken == ["sage/3"]


def test_a_body_without_end_is_not_read_to_the_end(receiver, woken):
    body = b"x" * (LARGEST_BYTES + 1)
    assert receiver.post(PATH, content=body, headers=delivery(body)).status_code == 413


def test_health_is_what_the_loop_says(receiver):
    assert receiver.get("/healthz").json() == {"status": "ok"}


def test_metrics_are_told_as_prometheus_reads_them(receiver):
    answer = receiver.get("/metrics")
    assert answer.text == "watcher_sweeps_total 3.0\n"
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_slow_and_many_clients_of_the_receiver_are_bounded(tmp_path):
    """W1.3; what the limits do is tested in test_connections."""
    settings = Settings(home=tmp_path)
    server = listen(settings, Watcher(settings), SECRET)
    assert issubclass(server.config.http, LimitedProtocol)
    assert server.config.http.crowd.limits.bodies_bytes < 64 * 2**20
    assert server.config.http.crowd.limits.body_s <= 10
