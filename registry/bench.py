"""The bench: candidates that were evicted or refused, which each re-evaluation of the champion tries again."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.tournaments import finished
from esci_tournament.registry.withdrawals import withdrawals


@dataclass(frozen=True)
class Bench:
    """The candidates that a re-evaluation tries again.

    Attributes:
        seats: Candidate ids; former members of a champion first, then others, each most recently tried first.
        excluded: Candidate id -> why it is not tried this time.
        tournaments: Candidate id of each seat -> id of the last finished tournament it entered, which has its model.
    """

    seats: tuple[str, ...] = ()
    excluded: dict[str, str] = field(default_factory=dict)
    tournaments: dict[str, str] = field(default_factory=dict)


def find_bench(ledger: Ledger, ensemble: str, members: Collection[str], size: int) -> Bench:
    """Return the bench of an ensemble: entrants of finished tournaments that are not members and did not fail.

    Those that were withdrawn are excluded, with this as the reason.

    Args:
        ledger: The ledger with the tournaments and the champion's history.
        ensemble: Name of the ensemble.
        members: Candidate ids of the champion's members.
        size: Seats on the bench; those beyond are excluded, with this as the reason.

    Returns:
        The seats, who is excluded and why, and the last tournament of each seat.
    """
    last: dict[str, str] = {}
    for held in finished(ledger):
        for entry in ledger.entries(held.tournament):
            last.pop(entry.candidate, None)  # so that the last one tried stands last
            last[entry.candidate] = held.tournament
    failed = {(event.tournament, event.subject): event.payload for event in ledger.events(kind="candidate_failed")}
    waiting, excluded = [], {}
    gone = withdrawals(ledger)
    for candidate, tournament in reversed(last.items()):
        if candidate in members:
            continue
        if candidate in gone:
            excluded[candidate] = str(gone[candidate])
        elif failure := failed.get((tournament, candidate)):
            excluded[candidate] = f"failed in {tournament}: {failure.get('reason', 'no reason on record')}"
        else:
            waiting.append(candidate)
    former = _former_members(ledger, ensemble)
    waiting.sort(key=lambda candidate: candidate not in former)
    for candidate in waiting[size:]:
        excluded[candidate] = f"the bench has {size} seats (setting bench_size)"
    seats = tuple(waiting[:size])
    return Bench(seats, excluded, {candidate: last[candidate] for candidate in seats})


def _former_members(ledger: Ledger, ensemble: str) -> set[str]:
    crowned = {chapter.promotion.version for chapter in ledger.history(ensemble)}
    built = (one for one in ledger.ensembles() if one.name == ensemble and one.version in crowned)
    return {member for one in built for member in one.payload.get("members", ())}
