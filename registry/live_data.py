"""Which data version scorers use: its catalogue of products, and its behaviour.

A champion begins with the data of its tournament. Newer data that passed validation may be named here; models do not
learn from it, but graph networks read its edges and products are found in its catalogue. What a reviewer has to approve
first is in :mod:`esci_tournament.registry.data_reviews`.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from esci_tournament.registry.errors import NotFoundError, UsageError
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.records import Tournament

EVENT = "data_served"
BEFORE = "live_data_before"  # in the payload of a tournament


@dataclass(frozen=True)
class Served:
    """A data version that scorers use, or used.

    Attributes:
        data_version: Its digest.
        at: Since when (UTC).
        by: Who named it, "" where that is not on record.
        reason: Why.
    """

    data_version: str
    at: dt.datetime
    by: str
    reason: str


def set_live_data(ledger: Ledger, data_version: str, by: str = "", reason: str = "") -> bool:
    """Record that a data version is the newest that scorers use.

    Args:
        ledger: Where it is recorded.
        data_version: Digest of the data version.
        by: Who says so.
        reason: Why.

    Returns:
        Whether it was recorded; False when it was the newest already.
    """
    if is_served(ledger, data_version):
        return False
    ledger.record_event(EVENT, data_version, payload={"by": by, "reason": reason})
    return True


def live_data(ledger: Ledger, tournament: Tournament) -> str:
    """Return the data version that the ensemble of a tournament uses: its own, or one that was named since.

    Args:
        ledger: Where newer data is recorded.
        tournament: The tournament that built the ensemble.

    Returns:
        Digest of the data version.
    """
    return served_history(ledger, tournament)[-1].data_version


def served_history(ledger: Ledger, tournament: Tournament) -> list[Served]:
    """Return what scorers have used under the ensemble of a tournament, its own data first; at least one.

    Args:
        ledger: Where newer data is recorded.
        tournament: The tournament that built the ensemble.

    Returns:
        Each change to another data version, oldest first.
    """
    named = ledger.events(kind=EVENT)
    before = tournament.payload.get(BEFORE)
    # Clocks are corrected, so the order of rows decides where the tournament has it on record
    since = named[before:] if isinstance(before, int) else [one for one in named if one.at > tournament.at]
    found = [Served(tournament.data_version, tournament.at, "", f"the data of tournament {tournament.tournament}")]
    for event in since:
        if event.subject != found[-1].data_version:
            said = event.payload
            found.append(Served(event.subject, event.at, str(said.get("by", "")), str(said.get("reason", ""))))
    return found


def is_served(ledger: Ledger, data_version: str) -> bool:
    """Return whether a data version is the newest that was named for scorers."""
    known = ledger.events(kind=EVENT)
    return bool(known) and known[-1].subject == data_version


def named_so_far(ledger: Ledger) -> int:
    """Return how often a data version was named, which a tournament keeps under :data:`BEFORE` when it starts."""
    return len(ledger.events(kind=EVENT))


def take_back(ledger: Ledger, tournament: Tournament, by: str, reason: str) -> Served:
    """Have scorers use the data version before this one again; taken back once more, the newer one serves again.

    Args:
        ledger: Where it is recorded.
        tournament: The tournament that built the champion.
        by: Who says so.
        reason: Why.

    Returns:
        What serves now.

    Raises:
        UsageError: If the reason is blank.
        NotFoundError: If the champion has used no other data.
    """
    if not reason.strip():
        raise UsageError("taking data back needs a reason; it stays in the record")
    history = served_history(ledger, tournament)
    if len(history) < 2:
        raise NotFoundError("the champion has the data of its own tournament, and has had no other; nothing is undone")
    set_live_data(ledger, history[-2].data_version, by, reason)
    return served_history(ledger, tournament)[-1]
