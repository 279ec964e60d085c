"""Who may decide: names are compared without case and without the host, as in `ana@laptop`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from esci_tournament.registry.errors import NotFoundError
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.models import Models
from esci_tournament.registry.reviews import Case
from esci_tournament.registry.settings import Settings


def person(name: str) -> str:
    """Return the name that two spellings of one person share."""
    return " ".join(name.split("@")[0].split()).casefold()


def registrants(ledger: Ledger, models: Models, case: Case) -> list[str]:
    """Return who registered the members that the challenger has and its champion did not have.

    A version that says nothing of who registered it has nobody to be kept from approving it.
    """
    members = case.ensemble.payload.get("members", ())
    new = {entry.candidate for entry in ledger.entries(case.tournament) if entry.role != "member"}
    names = []
    for member in members:
        if member in new:
            try:
                names.append(models.registered_by(models.candidate(member)))
            except NotFoundError:  # deleted from the registry since
                continue
    return list(dict.fromkeys(name for name in names if name))


def complaint(settings: Settings, outcome: str, reviewer: str, reason: str, registered_by: Iterable[str]) -> str:
    """Return what is wrong with an answer, "" when it can be recorded.

    Args:
        settings: `reviewers` and `allow_self_review`.
        outcome: approve or refuse.
        reviewer, reason: as they were typed.
        registered_by: who registered what is new in the challenger.
    """
    if not person(reviewer):
        return "The reviewer's name is missing: the record says who decided."
    if settings.reviewers and person(reviewer) not in map(person, settings.reviewers):
        return f"{reviewer.strip()} is not one of the reviewers; they are {_listed(settings.reviewers)}."
    if outcome == "approve" and not settings.allow_self_review and person(reviewer) in map(person, registered_by):
        return (
            f"{reviewer.strip()} registered a candidate that is new in this ensemble and may not approve it; let "
            "somebody else decide, or refuse it (setting allow_self_review lifts this)."
        )
    if not reason.strip():
        return "The reason is missing: it goes into the champion's history."
    return ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
