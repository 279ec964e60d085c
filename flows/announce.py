"""Events in Prefect about what happened; automations turn them into messages to people."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any, Literal

from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.events import Event
from prefect.logging import get_logger
from prefect.settings import PREFECT_API_URL

Kind = Literal["verdict", "review", "promotion", "failure"]

# Seconds to wait before each try: a server that is being restarted is back within them, a flow is not held up longer.
TRIES_S = (0.0, 2.0, 6.0)
_LONGEST = 4_000  # characters of a text
# Between the parts of an address, a Markdown link, and a mention of everybody
_CALLS = re.compile(r"(?<=:)(?=//)|(?<=\])(?=\()|(?<=@)(?=channel|here|everyone|all\b)", re.IGNORECASE)


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
        event = Event(
            event=f"tournament.{kind}",
            resource={
                "prefect.resource.id": f"esci-tournament.{subject}",
                "prefect.resource.name": subject,
                "prefect.resource.role": kind,
            },
            related=_flow_run(),
            payload={"title": f"{kind}: {subject}", "text": "", "links": {}} | _quiet(payload or {}),
        )
        # Posted, not queued for Prefect's background worker: a process that ends at once loses what is queued.
        body = [event.model_dump(mode="json")]
        return any(_post(body, wait) for wait in TRIES_S)
    except Exception as error:  # a verdict or promotion must not fail because its message cannot be sent
        get_logger("announce").warning("%s of %s was not announced: %s", kind, subject, error)
        return False


def quiet(text: str) -> str:
    """Return a text in which a chat finds nothing that calls people, makes a link or hides where a link goes.

    What somebody has registered is quoted in messages. Addresses of ours are sent beside the text.

    Args:
        text: The text.

    Returns:
        At most 4,000 characters, printable but for line feeds, with other angle brackets (which make links and mentions
        in Slack), and a word joiner (U+2060) in addresses, mentions of everybody and Markdown's links.

    Example:
        >>> quiet("<!channel> read <https://evil.example|this>").replace("\u2060", "~")
        '‹!channel› read ‹https:~//evil.example|this›'
    """
    text = "".join(letter for letter in text[:_LONGEST] if letter.isprintable() or letter == "\n")
    return _CALLS.sub("\u2060", text.translate({ord("<"): "‹", ord(">"): "›"}))


def _quiet(payload: Mapping[str, Any]) -> dict[str, Any]:
    shown = {name: quiet(payload[name]) for name in ("title", "text") if isinstance(payload.get(name), str)}
    return dict(payload) | shown


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
