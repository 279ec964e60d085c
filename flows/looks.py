"""The looks at test pairs that a home has taken, and what they have spent of the one error budget that it has."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from esci_tournament.flows.context import TournamentContext
from esci_tournament.registry.checks import CHEAPER, GAIN
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.records import LookRecord, VerdictRecord
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.data.store import digest_of_test, share_in_test, write_test
from esci_tournament.tasks.ensemble.spending import SPENDABLE, History, look_at


def take_look(workspace: Workspace, context: TournamentContext, pairs: pd.DataFrame, compares: bool) -> History:
    """Record the look that a tournament is about to take, and return those that count before it.

    All looks of a home share one budget, whatever test pairs they were at: else newer data, or an export that numbers
    its rows anew, would grant the whole error probability again. A look is given back whose verdict promoted, could say
    nothing, or was on a challenger that answers as the champion does. How much of its pairs earlier looks have seen, by
    query, product, locale and label, decides how much of the rest the look may spend
    (:func:`esci_tournament.tasks.ensemble.spending.look_at`).

    Args:
        workspace: Ledger, stage store, which keeps what pairs were looked at, and settings.
        context: The tournament that is about to look; its own looks do not count.
        pairs: The test pairs, as :func:`esci_tournament.flows.quarantine.pairs_to_judge` returns them.
        compares: Whether there is a champion to compare with; nothing is looked at without one.

    Returns:
        The looks before this one that promoted nothing.
    """
    ledger, stages, alpha = workspace.ledger, workspace.stages, workspace.settings.alpha
    digest = digest_of_test(pairs)
    stages.obtain(stages.key("test_split", digest=digest), lambda folder: write_test(pairs, folder))
    seen = 0.0
    known = {digest: 1.0}
    counted = _counted(ledger, (context.id, context.attempt.against))
    for look in counted:
        if look.test_split not in known:
            folder = stages.find(stages.key("test_split", digest=look.test_split))
            known[look.test_split] = 1.0 if folder is None else share_in_test(pairs, folder)
        seen += known[look.test_split]
    before = History(len(counted), min(seen, len(counted)), _spent(counted, alpha))
    if compares:
        facts = {"level": look_at(before, alpha).level, "seen": before.seen}
        ledger.record_look(digest, context.id, context.attempt.against, facts)
    return before


def budget_left(ledger: Ledger, alpha: float) -> float:
    """Return the share of what all looks of a home may spend that no look has spent for good.

    Args:
        ledger: The ledger.
        alpha: Error probability of all looks together.

    Returns:
        0 to 1.
    """
    return max(1 - _spent(_counted(ledger), alpha) / (SPENDABLE * alpha), 0.0)


def _spent(counted: Sequence[LookRecord], alpha: float) -> float:
    """Return what looks have spent together; one of an earlier release counts as one at pairs that stayed the same."""
    levels = (look.payload.get("level") for look in counted)
    spent = (look_at(History(number), alpha).level if one is None else one for number, one in enumerate(levels))
    return sum(spent, 0.0)


def given_up(ledger: Ledger) -> float:
    """Return what promotions of cheaper ensembles may have lost on the primary metric since the best champion so far.

    Each may have lost as much as the lower bound of its verdict says. What later promotions gained for sure makes up
    for it.

    Args:
        ledger: The ledger.

    Returns:
        0 or more, in the metric's unit.
    """
    verdicts = {one.id: one for one in ledger.verdicts()}
    lost = 0.0
    for decision in ledger.decisions():
        verdict = verdicts[decision.verdict]
        if decision.outcome == "approve" and verdict.payload.get("route") in (GAIN, CHEAPER):
            lost = max(lost - _bound(verdict), 0.0)
    return lost


def _counted(ledger: Ledger, own: tuple[str, int] | None = None) -> list[LookRecord]:
    """Return the looks that spent for good, oldest first; one without a verdict was broken off, and counts."""
    given_back = {(one.tournament, one.against) for one in ledger.verdicts() if _gives_back(one)}
    looks = ((look, (look.tournament, look.against)) for look in ledger.looks())
    return [look for look, by in looks if by != own and by not in given_back]


def _gives_back(verdict: VerdictRecord) -> bool:
    return verdict.outcome != "refuse" or verdict.payload.get("spends_look") is False


def _bound(verdict: VerdictRecord) -> float:
    """Return the lower bound of the change on the primary metric by which a verdict promoted."""
    bounds = [check["value"] for check in verdict.payload["checks"] if check["name"] == verdict.payload["route"]]
    return float(bounds[0] or 0.0) if bounds else 0.0
