"""Who may decide on a promotion. Names are compared without case and without the host, as in `ana@laptop`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from esci_tournament.registry.errors import NotFoundError
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.models import Models
from esci_tournament.registry.reviews import Case
from esci_tournament.registry.settings import Settings


def person(name: str) -> str:
    """Return what two spellings of one person's name have in common.

    Args:
        name: As it was typed, or user@host.

    Returns:
        The name in lower case, without host and surplus spaces; "" when it is blank.

    Example:
        >>> person("  Ana  Silva@laptop ")
        'ana silva'
    """
    return " ".join(name.split("@")[0].split()).casefold()


def registrants(ledger: Ledger, models: Models, case: Case) -> list[str]:
    """Return who registered the members that the challenger has and its champion did not have.

    A version whose registrant is unknown or that is deleted counts for nobody, so anyone may approve it.

    Args:
        ledger: The ledger with the tournament's entries.
        models: The registry that knows who registered a version.
        case: The case that is decided on.

    Returns:
        The names as they were recorded, each once.
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
        reviewer: Name as it was typed.
        reason: Why, as it was typed.
        registered_by: Who registered what is new in the challenger.

    Returns:
        A sentence for the reviewer, or "".
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
