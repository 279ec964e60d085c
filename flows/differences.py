"""What MLflow says otherwise than the record of champion and candidates: told once, and followed by nobody."""

from __future__ import annotations

from collections.abc import Mapping

from esci_tournament.flows.announce import announce
from esci_tournament.registry.workspace import Workspace

DIFFERS, AGREES = "record_differs", "record_agrees"  # kinds of events; subject: the candidate or ensemble version


def tell(workspace: Workspace, looked: Mapping[str, str]) -> list[str]:
    """Record and announce differences from the record that have not been told yet, and record when one is over.

    Args:
        workspace: The home whose ledger is written.
        looked: Id -> in which way it differs, "" when it does not.

    Returns:
        The texts of those that were told now, and a sentence for each that is over.
    """
    ledger, last = workspace.ledger, {}
    for event in sorted((*ledger.events(kind=DIFFERS), *ledger.events(kind=AGREES)), key=lambda event: event.id):
        last[event.subject] = event.payload.get("text", "")
    said = []
    for id, text in looked.items():
        if text == last.get(id, ""):
            continue
        if text:
            ledger.record_event(DIFFERS, id, payload={"text": text})
            announce("failure", id, {"title": f"{id} is not in MLflow as it is on record", "text": text})
            said.append(text)
        else:
            ledger.record_event(AGREES, id)
            said.append(f"{id} is in MLflow as it is on record again")
    return said
