"""Messages about verdicts, reviews, promotions and failures: Prefect's automations over its notification blocks."""

from __future__ import annotations

from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound

from esci_tournament.deployments.notify_block import missing, parts_of
from esci_tournament.registry.errors import NotFoundError

PREFIX = "tournament tells:"

# Events that flows announce (flows/announce.py) have the texts in their payload.
SUBJECT = "{{ event.payload.title }}"
BODY = """\
{{ event.payload.text }}
{% for name, link in event.payload.links.items() %}
{{ name }}: {{ link }}{% endfor %}"""

# A run that was killed, timed out or failed cannot announce it, so Prefect's own events are used.
ENDED_BADLY = ("prefect.flow-run.Failed", "prefect.flow-run.Crashed", "prefect.flow-run.TimedOut")
BAD_SUBJECT = "{{ flow.name }} {{ flow_run.name }}: {{ flow_run.state.name }}"
BAD_BODY = """\
{{ flow_run.state.message }}

flow run: {{ flow_run|ui_url }}"""


def automations(block: UUID, flows: list[str]) -> list[AutomationCore]:
    """Return the automations that send the product's events to a notification block.

    Args:
        block: id of the block document.
        flows: names of the flows whose failed, crashed and timed-out runs are reported.

    Returns:
        One automation each for verdicts, reviews, promotions and failures, then one for runs that ended badly. Their
        names begin with :data:`PREFIX`.
    """
    told = [
        AutomationCore(
            name=f"{PREFIX} {kind}",
            description=f"Sends what the event tournament.{kind} says",
            trigger=_each(f"tournament.{kind}"),
            actions=[SendNotification(block_document_id=block, subject=SUBJECT, body=BODY)],
        )
        for kind in ("verdict", "review", "promotion", "failure")
    ]
    runs = AutomationCore(
        name=f"{PREFIX} a run that ended badly",
        description="Sends what Prefect says of a run that failed, crashed or took too long",
        trigger=_each(
            *ENDED_BADLY,
            related=ResourceSpecification({"prefect.resource.role": "flow", "prefect.resource.name": flows}),
        ),
        actions=[SendNotification(block_document_id=block, subject=BAD_SUBJECT, body=BAD_BODY)],
    )
    return [*told, runs]


async def find_block(client: PrefectClient, said: str) -> UUID:
    """Return the id of the notification block that the setting `notify_block` names.

    Args:
        client: client of the Prefect server that has the block.
        said: the block's type and name with a slash between, such as "slack-webhook/relevance".

    Returns:
        The id of the block document.

    Raises:
        UsageError: if `said` is not two words with a slash between.
        NotFoundError: if the server has no such block.
    """
    kind, name = parts_of(said)
    try:
        document = await client.read_block_document_by_name(name, kind)
    except ObjectNotFound:
        raise NotFoundError(missing(said)) from None
    return document.id


def _each(*events: str, related: ResourceSpecification | None = None) -> EventTrigger:
    """Return a trigger that fires for every single event."""
    return EventTrigger(
        expect=set(events),
        match_related=related or ResourceSpecification({}),
        for_each={"prefect.resource.id"},
        posture=Posture.Reactive,
        threshold=1,
    )
