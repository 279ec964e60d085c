"""Which data version scorers use: its catalogue of products, and its behaviour.

A champion begins with the data of its tournament. Newer data that passed validation may be named here; models do not
learn from it, but graph networks read its edges and products are found in its catalogue.
"""

from __future__ import annotations

from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.records import Tournament

EVENT = "data_served"
BEFORE = "live_data_before"  # in the payload of a tournament


def set_live_data(ledger: Ledger, data_version: str) -> bool:
    """Record that a data version is the newest that scorers use.

    Args:
        ledger: Where it is recorded.
        data_version: Digest of the data version.

    Returns:
        Whether it was recorded; False when it was the newest already.
    """
    known = ledger.events(kind=EVENT)
    if known and known[-1].subject == data_version:
        return False
    ledger.record_event(EVENT, data_version)
    return True


def live_data(ledger: Ledger, tournament: Tournament) -> str:
    """Return the data version that the ensemble of a tournament uses: its own, or one that was named since.

    Args:
        ledger: Where newer data is recorded.
        tournament: The tournament that built the ensemble.

    Returns:
        Digest of the data version.
    """
    named = ledger.events(kind=EVENT)
    if not named:
        return tournament.data_version
    before = tournament.payload.get(BEFORE)
    # Clocks are corrected, so the order of rows decides where the tournament has it on record
    since = len(named) > before if isinstance(before, int) else named[-1].at > tournament.at
    return named[-1].subject if since else tournament.data_version


def named_so_far(ledger: Ledger) -> int:
    """Return how often a data version was named, which a tournament keeps under :data:`BEFORE` when it starts."""
    return len(ledger.events(kind=EVENT))
