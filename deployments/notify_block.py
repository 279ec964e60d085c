"""The notification block that the setting `notify_block` names: whether the Prefect server has it, and what to do."""

from __future__ import annotations

from urllib.parse import quote

import httpx

from esci_tournament.deployments.stack.access import authorization
from esci_tournament.registry.errors import NotFoundError, ServiceError, UsageError

PROBE_S = 5.0


def parts_of(said: str) -> tuple[str, str]:
    """Return type and name of the block that the setting `notify_block` names.

    Args:
        said: the block's type and name with a slash between, such as "slack-webhook/relevance".

    Raises:
        UsageError: if `said` is not two words with a slash between.

    Example:
        >>> parts_of("slack-webhook/relevance")
        ('slack-webhook', 'relevance')
    """
    kind, slash, name = said.partition("/")
    if not (kind and slash and name) or "/" in name:
        raise UsageError(
            f"setting notify_block: {said!r} is not type/name, such as slack-webhook/relevance; docs/notifications.md "
            "lists the types"
        )
    return kind, name


ADVICE = (
    "make it in the UI (Blocks, the plus sign) under that type and name, or as in docs/notifications.md. What "
    "`tournament up` runs takes it up within a minute; for a server of your own, run `tournament deploy` then"
)


def missing(said: str) -> str:
    """Return that a Prefect server does not have a block, and what to do."""
    return f"setting notify_block: Prefect has no block {said!r}, so no messages are sent; {ADVICE}"


def check_block(said: str, api: str, auth: str | None) -> None:
    """Check that a Prefect server has a notification block.

    Args:
        said: the setting `notify_block`; "" asks for none.
        api: address of the server's API, such as "http://127.0.0.1:4200/api".
        auth: `name:password` of the server, None for none.

    Raises:
        UsageError: if `said` is not type/name.
        NotFoundError: if the server has no such block.
        ServiceError: if the server does not answer, or refuses to.
    """
    if not said:
        return
    kind, name = (quote(part, safe="") for part in parts_of(said))
    page = f"{api.rstrip('/')}/block_types/slug/{kind}/block_documents/name/{name}"
    try:
        answer = httpx.get(page, timeout=PROBE_S, headers=authorization(auth) if auth else {})
    except httpx.HTTPError as error:
        raise ServiceError(f"setting notify_block cannot be checked: {api} does not answer: {error}") from error
    if answer.status_code == 404:
        raise NotFoundError(missing(said))
    if answer.status_code != 200:
        raise ServiceError(f"setting notify_block cannot be checked: {api} answers with {answer.status_code}")
