"""Events in Prefect about what happened; automations turn them into messages to people."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Literal

from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.events import Event
from prefect.logging import get_logger
from prefect.settings import PREFECT_API_URL

from esci_tournament.registry.foreign import plain

Kind = Literal["verdict", "review", "promotion", "failure"]

# Seconds to wait before each try: a server that is being restarted is back within them, a flow is not held up longer.
TRIES_S = (0.0, 2.0, 6.0)


def announce(kind: Kind, subject: str, payload: Mapping[str, Any] | None = None) -> bool:
    """Send the event `tournament.<kind>` about a tournament, an ensemble version or a candidate. Never raises.

    Title and text may quote what somebody else wrote: what a chat or mail program would take for a link, a mention or
    mark-up is neutralised in both.

    Args:
        kind: What happened.
        subject: Id of what it happened to, such as `t-0123abcd` or `esci-ensemble/3`.
        payload: JSON-able content. A notification shows `title` (one line), `text` (what happened, in words) and
            `links` (name to address); other keys are for programs.

    Returns:
        Whether a server took it; without a configured server nothing is sent.
    """
    if not PREFECT_API_URL.value():
        return False
    try:
        content = {"title": f"{kind}: {subject}", "text": "", "links": {}} | dict(payload or {})
        event = Event(
            event=f"tournament.{kind}",
            resource={
                "prefect.resource.id": f"esci-tournament.{subject}",
                "prefect.resource.name": subject,
                "prefect.resource.role": kind,
            },
            related=_flow_run(),
            payload=content | {name: plain(content[name]) for name in ("title", "text")},
        )
        # Posted, not queued for Prefect's background worker: a process that ends at once loses what is queued.
        body = [event.model_dump(mode="json")]
        return any(_post(body, wait) for wait in TRIES_S)
    except Exception as error:  # a verdict or promotion must not fail because its message cannot be sent
        get_logger("announce").warning("%s of %s was not announced: %s", kind, subject, error)
        return False


def _post(body: list[dict[str, Any]], wait: float) -> bool:
    time.sleep(wait)
    try:
        with get_client(sync_client=True) as client:
            client.request("POST", "/events", json=body).raise_for_status()
    except Exception as error:
        get_logger("announce").warning("Prefect took no event (%s)", error)
        return False
    return True


def _flow_run() -> list[dict[str, str]]:
    if not runtime.flow_run.id:
        return []
    return [{"prefect.resource.id": f"prefect.flow-run.{runtime.flow_run.id}", "prefect.resource.role": "flow-run"}]
