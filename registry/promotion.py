"""Promotion and rollback: an intent in the ledger, then MLflow's aliases, then done. The ledger is the truth.

MLflow has no compare-and-set on aliases, so the winner of a race is found in the ledger, where two intents cannot
follow the same one. The aliases `champion` and `previous` are its projection: whoever comes next (`reconcile`)
finishes what a crash interrupted.
"""

from __future__ import annotations

from dataclasses import dataclass

from esci_tournament.registry.errors import NotFoundError, UsageError
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.models import CHAMPION, PREVIOUS, Models
from esci_tournament.registry.records import Decision, Promotion
from esci_tournament.registry.versions import EnsembleVersion


@dataclass(frozen=True)
class AliasDrift:
    """An alias that does not say what the ledger says; `ledger` and `mlflow` are versions, None for no version."""

    alias: str
    ledger: int | None
    mlflow: int | None

    def __str__(self) -> str:
        return (
            f"alias {self.alias!r} names {_name(self.mlflow)} and the ledger says {_name(self.ledger)}: it was moved "
            "by hand. Put it back: tournament champion restore. Or make the change with a reason: by a review, or "
            "tournament champion rollback --reason"
        )


def promote(
    ledger: Ledger, models: Models, version: EnsembleVersion, decision: Decision, expected: int, reason: str = ""
) -> Promotion:
    """Make an ensemble version champion on the strength of a decision; the same decision promotes once.

    Args:
        version: The version to promote.
        decision: The recorded approval.
        expected: `Standing.sequence` that the verdict was judged against, 0 when there was no champion.
        reason: Why; default: the reason of the decision.

    Raises:
        BusyError: if the champion changed since the verdict, or another process won the race.
        UsageError: if the decision is no approval.
        NotFoundError: if the registry has no such version.
    """
    if decision.outcome != "approve":
        raise UsageError(f"decision {decision.id} on {version.id} is {decision.outcome!r}; only an approval promotes")
    models.ensemble(version.version)
    promotion = ledger.record_promotion(
        models.ensemble_name, "promote", version.version, expected, reason or decision.reason, decision.id
    )
    reconcile(ledger, models)
    return promotion


def rollback(ledger: Ledger, models: Models, reason: str, expected: int | None = None) -> Promotion:
    """Take one step back to the champion before this one.

    A rollback that was killed is finished by giving the same reason again, not taken twice.

    Args:
        reason: Why; it stands in the champion's history.
        expected: `Standing.sequence` that the caller saw; default: whatever it is now.

    Raises:
        UsageError: if the reason is blank.
        NotFoundError: if there is no champion before this one.
        BusyError: if another promotion or rollback came first.
    """
    if not reason.strip():
        raise UsageError("a rollback needs a reason; it goes into the champion's history")
    for finished in reconcile(ledger, models):
        if finished.kind == "rollback" and finished.reason == reason:
            return finished
    standing = ledger.standing(models.ensemble_name)
    if standing.previous is None:
        raise NotFoundError(f"{models.ensemble_name} has no champion before this one; there is nothing to go back to")
    promotion = ledger.record_promotion(
        models.ensemble_name,
        "rollback",
        standing.previous.version,
        standing.sequence if expected is None else expected,
        reason,
    )
    reconcile(ledger, models)
    return promotion


def reconcile(ledger: Ledger, models: Models) -> list[Promotion]:
    """Finish promotions and rollbacks whose intent is recorded and whose end is not; return those, oldest first.

    Call it at every start: it does nothing when nothing is open, and leaves aliases moved by hand to `drift`.
    """
    if not ledger.pending(models.ensemble_name):
        return []
    # Under the lock nobody can move an alias by an older standing after a newer one was projected.
    with ledger.exclusive(f"promotion of {models.ensemble_name}"):
        pending = ledger.pending(models.ensemble_name)
        if pending:
            _project(ledger, models, pending)
    return pending


def restore(ledger: Ledger, models: Models) -> list[AliasDrift]:
    """Put the aliases back to what the ledger says, and return what was wrong."""
    found = drift(ledger, models)
    if found:
        with ledger.exclusive(f"promotion of {models.ensemble_name}"):
            _project(ledger, models, ledger.pending(models.ensemble_name))
        moved = {each.alias: {"ledger": each.ledger, "mlflow": each.mlflow} for each in found}
        ledger.record_event("aliases_restored", models.ensemble_name, payload=moved)
    return found


def drift(ledger: Ledger, models: Models) -> list[AliasDrift]:
    """Return the aliases that do not say what the ledger says, and that no promotion under way is about to move."""
    while True:
        before = ledger.standing(models.ensemble_name)
        if ledger.pending(models.ensemble_name):
            return []
        truth = {CHAMPION: before.champion, PREVIOUS: before.previous}
        said = {alias: models.alias(alias) for alias in truth}
        if ledger.standing(models.ensemble_name).sequence == before.sequence:
            break
    expected = {alias: promotion.version if promotion else None for alias, promotion in truth.items()}
    return [AliasDrift(alias, expected[alias], said[alias]) for alias in truth if said[alias] != expected[alias]]


def _project(ledger: Ledger, models: Models, pending: list[Promotion]) -> None:
    """Move the aliases to the ledger's standing, a step recorded after each move."""
    standing = ledger.standing(models.ensemble_name)
    for alias, promotion in ((CHAMPION, standing.champion), (PREVIOUS, standing.previous)):
        wanted = promotion.version if promotion else None
        if models.alias(alias) != wanted:
            models.set_alias(alias, wanted)
        for each in pending:
            ledger.record_step(each.id, f"{alias}_moved", {"version": wanted})
    for each in pending:
        ledger.record_step(each.id, "done")


def _name(version: int | None) -> str:
    return "no version" if version is None else f"version {version}"
