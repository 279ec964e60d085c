"""Changes of the champion: recorded in the ledger first, then MLflow's aliases are moved, then it is marked as done.

A promotion follows from a decision. A rollback, an undo and a set are made by an operator, with a reason.

MLflow has no compare-and-set on aliases, so races are decided in the ledger, where two changes cannot follow the same
one. The aliases `champion` and `previous` follow from it: `reconcile`, which runs at every start, finishes what a
crash interrupted.
"""

from __future__ import annotations

from dataclasses import dataclass

from esci_tournament.registry.errors import NotFoundError, PolicyError, UsageError
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.models import CHAMPION, PREVIOUS, Models
from esci_tournament.registry.records import Decision, Promotion, Standing
from esci_tournament.registry.reviews import verdicts_that_ask
from esci_tournament.registry.versions import EnsembleVersion


@dataclass(frozen=True)
class AliasDrift:
    """An alias that differs from the ledger.

    Attributes:
        alias: champion or previous.
        ledger: The version by the ledger, None for no version.
        mlflow: The version that the alias names in MLflow, None for no version.
        deleted: Whether the version by the ledger is not in MLflow any more, so that no alias can name it.
    """

    alias: str
    ledger: int | None
    mlflow: int | None
    deleted: bool = False

    def __str__(self) -> str:
        if self.deleted:
            return (
                f"alias {self.alias!r} names {_name(self.mlflow)}: {_name(self.ledger)}, which the ledger says, was "
                "deleted from MLflow. The copies in this home continue to serve; hold a tournament, or go back: "
                "tournament champion rollback --reason"
            )
        return (
            f"alias {self.alias!r} names {_name(self.mlflow)} and the ledger says {_name(self.ledger)}: it was moved "
            "by hand. Put it back: tournament champion restore. Or make the change with a reason: by a review, or "
            "tournament champion rollback --reason"
        )


def promote(
    ledger: Ledger, models: Models, version: EnsembleVersion, decision: Decision, expected: int, reason: str = ""
) -> Promotion:
    """Make an ensemble version champion because of a decision; the same decision promotes once.

    Args:
        ledger: Where the promotion is recorded.
        models: The registry whose aliases are moved.
        version: The version to promote.
        decision: The recorded approval.
        expected: `Standing.sequence` that the verdict was judged against, 0 when there was no champion.
        reason: Why; default: the reason of the decision.

    Returns:
        The recorded promotion; the one that stands when the decision has promoted before.

    Raises:
        BusyError: If the champion changed since the verdict, or another process won the race.
        UsageError: If the decision is no approval.
        NotFoundError: If the registry has no such version.
    """
    if decision.outcome != "approve":
        raise UsageError(f"decision {decision.id} on {version.id} is {decision.outcome!r}; only an approval promotes")
    models.ensemble(version.version)
    promotion = ledger.record_promotion(
        models.ensemble_name, "promote", version.version, expected, reason or decision.reason, decision.id
    )
    reconcile(ledger, models)
    return promotion


def rollback(
    ledger: Ledger, models: Models, reason: str, expected: int | None = None, to: int | None = None
) -> Promotion:
    """Go back to the champion before this one, or to an earlier one.

    A rollback that was killed is finished by giving the same reason again, not taken twice.

    Args:
        ledger: Where the rollback is recorded.
        models: The registry whose aliases are moved.
        reason: Why; it stands in the champion's history.
        expected: `Standing.sequence` that the caller saw; default: whatever it is now.
        to: The version to go back to, one that was champion before; default: the one before. When it is champion
            already, nothing is recorded.

    Returns:
        The recorded rollback; the champion's own promotion when `to` is champion already.

    Raises:
        UsageError: If the reason is blank, or `to` was not champion before this one.
        NotFoundError: If there is no champion before this one, or its version was deleted from MLflow.
        BusyError: If another change came first.
    """
    _needs(reason, "a rollback")
    name = models.ensemble_name
    for finished in reconcile(ledger, models):
        if finished.kind == "rollback" and finished.reason == reason and to in (None, finished.version):
            return finished
    standing = ledger.standing(name)
    if to is not None and standing.champion is not None and standing.champion.version == to:
        return standing.champion
    if standing.previous is None:
        raise NotFoundError(f"{name} has no champion before this one; there is nothing to go back to")
    earlier = [one.version for one in standing.earlier]
    if to is not None and to not in earlier:
        raise UsageError(
            f"version {to} of {name} was not champion before this one, so it is no rollback; before it were: "
            f"{', '.join(map(str, dict.fromkeys(earlier)))}. For any other approved version: "
            f"tournament champion set {to} --reason"
        )
    steps = 1 if to is None else earlier.index(to) + 1
    version = earlier[steps - 1]
    models.ensemble(version)
    return _record(ledger, models, "rollback", version, standing, reason, expected, steps=steps)


def set_champion(ledger: Ledger, models: Models, version: int, reason: str, expected: int | None = None) -> Promotion:
    """Make a version champion that was champion before, or was approved by review or by the verdict.

    A version that was champion before needs no more than a rollback does. Any other one is held to the policy in force:
    a verdict that asks for its promotion, an approval of its very files, and as many reviewers as the policy asks for.

    Args:
        ledger: Where the change is recorded.
        models: The registry whose aliases are moved.
        version: Number of the ensemble's version. When it is champion already, nothing is recorded.
        reason: Why; it stands in the champion's history.
        expected: `Standing.sequence` that the caller saw; default: whatever it is now.

    Returns:
        The recorded change; the champion's own promotion when the version is champion already.

    Raises:
        UsageError: If the reason is blank.
        NotFoundError: If there is no such version, or it was deleted from MLflow.
        PolicyError: If it was never approved, or not as the policy asks for.
        BusyError: If another change came first.
    """
    _needs(reason, "a change of the champion")
    name = models.ensemble_name
    reconcile(ledger, models)
    standing, chapters = ledger.standing(name), ledger.history(name)
    if standing.champion is not None and standing.champion.version == version:
        return standing.champion
    models.ensemble(version)
    if any(one.promotion.version == version for one in chapters if not one.complaint):
        return _record(ledger, models, "set", version, standing, reason, expected)
    approval = _approval_of(ledger, name, version)
    return _record(ledger, models, "set", version, standing, reason, expected, approval)


def undo(ledger: Ledger, models: Models, reason: str, expected: int | None = None) -> Promotion:
    """Take the last change of the champion back, whatever it was; two undos are a redo.

    An undo that was killed is finished by giving the same reason again, not taken twice.

    Args:
        ledger: Where it is recorded.
        models: The registry whose aliases are moved.
        reason: Why; it stands in the champion's history.
        expected: `Standing.sequence` that the caller saw; default: whatever it is now.

    Returns:
        The recorded undo.

    Raises:
        UsageError: If the reason is blank.
        NotFoundError: If there was no champion before the last change, or its version was deleted from MLflow.
        BusyError: If another change came first.
    """
    _needs(reason, "an undo")
    for finished in reconcile(ledger, models):
        if finished.kind == "undo" and finished.reason == reason:
            return finished
    standing = ledger.standing(models.ensemble_name)
    if standing.undone is None:
        raise NotFoundError(
            f"{models.ensemble_name} had no champion before the last change; there is nothing to go back to"
        )
    models.ensemble(standing.undone.version)
    return _record(ledger, models, "undo", standing.undone.version, standing, reason, expected)


def _needs(reason: str, what: str) -> None:
    if not reason.strip():
        raise UsageError(f"{what} needs a reason; it goes into the champion's history")


def _approval_of(ledger: Ledger, ensemble: str, version: int) -> Decision:
    """Return the newest approval of a version's promotion."""
    built = {one.tournament for one in ledger.ensembles() if (one.name, one.version) == (ensemble, version)}
    verdicts = {one.id for one in verdicts_that_ask(ledger, built)}
    decided = [one for one in ledger.decisions() if one.verdict in verdicts]
    approved = [one for one in decided if one.outcome == "approve"]
    if approved:
        return approved[-1]
    if decided:
        last = decided[-1]
        why = f"was not approved: {last.outcome} by {last.reviewer} ({last.reason})"
    else:
        why = "was never approved" if verdicts else "has no verdict that asks for its promotion"
    raise PolicyError(
        f"version {version} of {ensemble} {why}. It can become champion by a review that approves it "
        "(tournament review list), not by being set"
    )


def _record(
    ledger: Ledger,
    models: Models,
    kind: str,
    version: int,
    standing: Standing,
    reason: str,
    expected: int | None,
    decision: Decision | None = None,
    steps: int = 1,
) -> Promotion:
    sequence = standing.sequence if expected is None else expected
    payload = {"steps": steps} if steps > 1 else None
    promotion = ledger.record_promotion(
        models.ensemble_name, kind, version, sequence, reason, decision.id if decision else None, payload
    )
    reconcile(ledger, models)
    return promotion


def reconcile(ledger: Ledger, models: Models) -> list[Promotion]:
    """Finish promotions and rollbacks that are recorded and not marked as done.

    Call it at every start: it does nothing when none is open, and leaves aliases moved by hand to `drift`.

    Args:
        ledger: Where they are recorded.
        models: The registry whose aliases are moved.

    Returns:
        Those that were finished, oldest first.
    """
    if not ledger.pending(models.ensemble_name):
        return []
    # Under the lock no process can move an alias by an older standing after another has moved it by a newer one.
    with ledger.exclusive(f"promotion of {models.ensemble_name}"):
        pending = ledger.pending(models.ensemble_name)
        if pending:
            _project(ledger, models, pending)
    return pending


def restore(ledger: Ledger, models: Models) -> list[AliasDrift]:
    """Put the aliases back to what the ledger says, and record that in the ledger.

    Args:
        ledger: Where promotions are recorded.
        models: The registry whose aliases are moved.

    Returns:
        The aliases that were wrong, [] when none was.

    Raises:
        BusyError: If another process moves the aliases for longer than a minute.
    """
    found = drift(ledger, models)
    if found:
        with ledger.exclusive(f"promotion of {models.ensemble_name}"):
            _project(ledger, models, ledger.pending(models.ensemble_name))
        moved = {each.alias: {"ledger": each.ledger, "mlflow": each.mlflow} for each in found}
        ledger.record_event("aliases_restored", models.ensemble_name, payload=moved)
    return found


def drift(ledger: Ledger, models: Models) -> list[AliasDrift]:
    """Return the aliases that differ from the ledger; none while a promotion or rollback is under way."""
    while True:
        before = ledger.standing(models.ensemble_name)
        if ledger.pending(models.ensemble_name):
            return []
        truth = {CHAMPION: before.champion, PREVIOUS: before.previous}
        said = {alias: models.alias(alias) for alias in truth}
        if ledger.standing(models.ensemble_name).sequence == before.sequence:
            break
    expected = {alias: promotion.version if promotion else None for alias, promotion in truth.items()}
    found = []
    for alias in truth:
        if said[alias] != expected[alias]:
            deleted = not _exists(models, expected[alias])
            if not (deleted and alias == PREVIOUS and said[alias] is None):  # old versions may be cleared away
                found.append(AliasDrift(alias, expected[alias], said[alias], deleted))
    return found


def _exists(models: Models, version: int | None) -> bool:
    try:
        return version is None or models.ensemble(version) is not None
    except NotFoundError:
        return False


def _project(ledger: Ledger, models: Models, pending: list[Promotion]) -> None:
    """Move the aliases to the ledger's standing, a step recorded after each move."""
    standing = ledger.standing(models.ensemble_name)
    for alias, promotion in ((CHAMPION, standing.champion), (PREVIOUS, standing.previous)):
        wanted = promotion.version if promotion else None
        if models.alias(alias) != wanted:
            try:
                models.set_alias(alias, wanted)
            except NotFoundError:  # the version was deleted: no alias is better than a wrong one
                models.set_alias(alias, None)
        for each in pending:
            ledger.record_step(each.id, f"{alias}_moved", {"version": wanted})
    for each in pending:
        ledger.record_step(each.id, "done")


def _name(version: int | None) -> str:
    return "no version" if version is None else f"version {version}"
