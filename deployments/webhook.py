"""The receiver of MLflow's webhooks: an event that is genuine, fresh and new wakes the watcher, and nothing more.

Of an event only the version that it names is used; everything else is read from the registry. Events that arrive while
the receiver is down are lost without harm, because the watcher polls as well.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from starlette.requests import ClientDisconnect

from esci_tournament.deployments.crowd import ConnectionLimits
from esci_tournament.registry.versions import SPEC_TAG

SIGNATURE, TIMESTAMP, DELIVERY = "X-MLflow-Signature", "X-MLflow-Timestamp", "X-MLflow-Delivery-Id"
PATH = "/mlflow-webhook"
LARGEST_BYTES = 1_000_000  # a spec is a tag of at most 100,000 characters
LIMITS = ConnectionLimits(connections=200, per_address=None, bodies_bytes=16_000_000, idle_s=30.0)
_DELIVERIES = 100_000  # ids kept before those too old to be accepted are dropped


def sign(secret: str, delivery: str, timestamp: str, body: bytes) -> str:
    """Return the signature that MLflow sends with a body: HMAC-SHA256 over delivery id, timestamp and body.

    Args:
        secret: What both sides know.
        delivery: The delivery id, header `X-MLflow-Delivery-Id`.
        timestamp: Seconds since 1970 as text, header `X-MLflow-Timestamp`.
        body: The request's body as it was sent.

    Returns:
        "v1," and the digest in base64, as in header `X-MLflow-Signature`.

    Example:
        >>> sign("secret", "delivery-1", "1700000000", b"{}")
        'v1,ZdsCvpgBR4MQuQRF62h0N81voCvIlfOpfh7qz3qLRoY='
    """
    content = f"{delivery}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret.encode(), content, hashlib.sha256).digest()).decode()


class Guard:
    """Checks that a delivery is genuine, fresh and new.

    Args:
        secret: What both sides know.
        age_s: How old a delivery may be, and how far ahead its clock, seconds.
    """

    def __init__(self, secret: str, age_s: float) -> None:
        self._secret, self._age_s = secret, age_s
        self._seen: dict[str, float] = {}  # delivery id -> its timestamp
        self._lock = threading.Lock()

    def complaint(self, signature: str, timestamp: str, delivery: str, body: bytes) -> str:
        """Return why a delivery is refused, "" for a good one, which is refused as a replay from then on.

        Args:
            signature: Header `X-MLflow-Signature`, "" when absent; so for the other two.
            timestamp: Header `X-MLflow-Timestamp`, seconds since 1970 as text.
            delivery: Header `X-MLflow-Delivery-Id`.
            body: The request's body as it arrived.

        Returns:
            The reason in one sentence, or "".
        """
        if not (signature and timestamp and delivery):
            return f"headers {SIGNATURE}, {TIMESTAMP} and {DELIVERY} are required"
        expected = sign(self._secret, delivery, timestamp, body)
        if not hmac.compare_digest(expected.encode(), signature.encode()):
            return "the signature is wrong: the secrets of sender and receiver differ, or the body was changed"
        if not timestamp.isascii() or not timestamp.isdigit() or len(timestamp) > 15:
            return "the timestamp is not a number of seconds"
        if abs(time.time() - int(timestamp)) > self._age_s:
            return f"the delivery is older than {self._age_s:g} s, or the clocks differ by as much"
        with self._lock:
            oldest = time.time() - self._age_s
            if len(self._seen) >= _DELIVERIES:
                self._seen = {id: at for id, at in self._seen.items() if at >= oldest}
            if delivery in self._seen:
                return "the delivery was received before"
            self._seen[delivery] = int(timestamp)
        return ""


def version_of(body: bytes) -> str | None:
    """Return the version (`name/version`) that an event is about, or None when it concerns no candidate.

    Args:
        body: The event as JSON, with the keys entity, action and data.

    Returns:
        The id, for a version that was created or whose spec tag was set; None for all else, malformed JSON included.

    Example:
        >>> data = '{"name": "minilm", "version": "3"}'
        >>> version_of(f'{{"entity": "model_version", "action": "created", "data": {data}}}'.encode())
        'minilm/3'
    """
    try:
        said = json.loads(body)
        entity, action, data = said["entity"], said["action"], said["data"]
        id = f"{data['name']}/{int(data['version'])}"
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    if (entity, action) == ("model_version", "created"):
        return id
    return id if (entity, action) == ("model_version_tag", "set") and data.get("key") == SPEC_TAG else None


def make_app(
    guard: Guard, wake: Callable[[str], None], health: Callable[[], dict[str, Any]], metrics: Callable[[], bytes]
) -> FastAPI:
    """Return the application with the routes `POST /mlflow-webhook`, `GET /healthz` and `GET /metrics`.

    Args:
        guard: Checks each delivery; a refused one is answered with 401.
        wake: Called with the id (`name/version`) of the version that a good event is about.
        health: Returns the JSON-able document that `/healthz` answers with.
        metrics: Returns the metrics in Prometheus' text format, UTF-8.

    Returns:
        The application. It answers 202 to a good delivery and 413 to a body of more than :data:`LARGEST_BYTES` bytes.
    """
    app = FastAPI(title="Watcher", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/healthz")
    def healthz() -> dict[str, Any]:
        return health()

    @app.get("/metrics")
    def show_metrics() -> Response:
        return Response(metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.post(PATH, status_code=202)
    async def receive(request: Request) -> dict[str, str]:
        body = bytearray()
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > LARGEST_BYTES:
                    raise HTTPException(413, f"the body is larger than {LARGEST_BYTES} bytes")
        except ClientDisconnect:
            raise HTTPException(408, "the body did not come") from None
        headers = request.headers
        said = (headers.get(SIGNATURE, ""), headers.get(TIMESTAMP, ""), headers.get(DELIVERY, ""))
        if complaint := guard.complaint(*said, bytes(body)):
            raise HTTPException(401, complaint)
        if version := version_of(bytes(body)):
            wake(version)
        return {"status": "received"}

    return app
