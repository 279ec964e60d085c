"""The bench: models once evicted or refused. Each re-evaluation of the champion gives them another chance."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.tournaments import finished


@dataclass(frozen=True)
class Bench:
    """Who gets another chance.

    Attributes:
        seats: candidate ids; who was a member of a champion before comes first, then who was tried last.
        excluded: candidate id -> why it stays away this time.
        tournaments: candidate id -> the last tournament that each seat was in, whose model it still has.
    """

    seats: tuple[str, ...] = ()
    excluded: dict[str, str] = field(default_factory=dict)
    tournaments: dict[str, str] = field(default_factory=dict)


def find_bench(ledger: Ledger, ensemble: str, members: Collection[str], size: int) -> Bench:
    """Return the bench of an ensemble: who was in a finished tournament, is no member today, and did not fail there.

    Args:
        ledger: the record.
        ensemble: name of the ensemble.
        members: candidate ids of the champion's members.
        size: how many may sit on the bench; the others are excluded, with this as the reason.
    """
    last: dict[str, str] = {}
    for held in finished(ledger):
        for entry in ledger.entries(held.tournament):
            last.pop(entry.candidate, None)  # so that whoever was tried last stands last
            last[entry.candidate] = held.tournament
    failed = {(event.tournament, event.subject): event.payload for event in ledger.events(kind="candidate_failed")}
    waiting, excluded = [], {}
    for candidate, tournament in reversed(last.items()):
        if candidate in members:
            continue
        if failure := failed.get((tournament, candidate)):
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
