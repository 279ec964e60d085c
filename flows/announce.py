"""Events in Prefect about what happened; automations turn them into messages to people."""

from __future__ import annotations

import ipaddress
import re
import socket
import time
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.events import Event
from prefect.logging import get_logger
from prefect.settings import PREFECT_API_URL

from esci_tournament.registry.addresses import without_password

Kind = Literal["verdict", "review", "promotion", "failure"]

# Seconds to wait before each try: a server that is being restarted is back within them, a flow is not held up longer.
TRIES_S = (0.0, 2.0, 6.0)
_LONGEST = 4_000  # characters of a text
_WEB = re.compile(r"https?://[^/]", re.IGNORECASE)
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
            `links` (name to address); other keys are for programs. Of the links those are sent that a browser opens;
            where the others lead is said in the text, see :func:`for_browsers`.

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
            payload=_quiet({"title": f"{kind}: {subject}", "text": "", "links": {}} | dict(payload or {})),
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


def for_browsers(links: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Divide links into those that a browser opens, and sentences on where the others lead.

    Whoever reads a message sits at another machine: a path on the disk of a worker, a `models:/` or `sqlite:` address
    opens nothing there.

    Args:
        links: Name -> web address, command of ours, `models:/NAME/VERSION`, path or other address.

    Returns:
        Name -> web address, without passwords, and sentences. One of them names the machine when web addresses lead
        to it alone, because its servers listen on loopback.

    Example:
        >>> for_browsers({"MLflow version": "models:/esci-ensemble/3", "Full report": "tournament report t-1"})
        ({}, ['MLflow version: version 3 of esci-ensemble.', 'Full report: run `tournament report t-1`.'])
    """
    web = {name: without_password(link) for name, link in links.items() if _WEB.match(link)}
    said = [_in_words(name, link) for name, link in links.items() if link and name not in web]
    if any(_is_loopback(link) for link in web.values()):
        said.append(f"The links open on {socket.gethostname()} alone, see docs/notifications.md.")
    return web, said


def _in_words(name: str, link: str) -> str:
    if link.startswith("tournament "):
        return f"{name}: run `{link}`."
    model, _, version = link.removeprefix("models:/").rpartition("/")
    if link.startswith("models:/") and model:
        return f"{name}: version {version} of {model}."
    return f"{name}: on the machine {socket.gethostname()}."


def _is_loopback(link: str) -> bool:
    try:
        host = urlsplit(link).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _quiet(payload: Mapping[str, Any]) -> dict[str, Any]:
    web, words = for_browsers(payload["links"])
    title, text = payload["title"], " ".join(words)
    if isinstance(payload["text"], str):
        said = quiet(payload["text"])[: _LONGEST - len(text) - 1]
        text = f"{said}\n{quiet(text)}" if said and text else said or quiet(text)
    else:
        text = payload["text"]
    return dict(payload) | {"title": quiet(title) if isinstance(title, str) else title, "text": text, "links": web}


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
