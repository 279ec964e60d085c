"""The record of a re-evaluation: the champion's numbers before and after, in the ledger and in Prefect."""

from __future__ import annotations

from typing import Any

from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_logger
from prefect.settings import PREFECT_API_URL

from esci_tournament.flows.context import Renewed, TournamentContext, TournamentOutcome, stage_task
from esci_tournament.registry.tournaments import metrics_of_champion
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.report.renewal import as_markdown, in_words

EVENT = "reevaluated"


@stage_task
def champion_before(workspace: Workspace, context: TournamentContext) -> dict[str, Any]:
    """Return what the last tournament that tells it measured of the champion that is evaluated again.

    Args:
        workspace: The home with the ledger.
        context: The tournament of the re-evaluation.

    Returns:
        As :func:`esci_tournament.registry.tournaments.metrics_of_champion`; {} when there is nothing.
    """
    if context.attempt.champion is None:
        return {}
    return metrics_of_champion(workspace.ledger, workspace.settings.ensemble_name, context.attempt.champion)


@stage_task
def record(
    workspace: Workspace,
    context: TournamentContext,
    outcome: TournamentOutcome,
    before: dict[str, Any],
    drift: dict[str, Any],
    serves: bool,
) -> Renewed:
    """Record in the ledger that champion and bench were evaluated again, with the numbers; once a tournament.

    That nothing had changed is recorded too, which shows that the weekly run runs.

    Args:
        workspace: The home with the ledger.
        context: The tournament of the re-evaluation.
        outcome: What it came to.
        before: What :func:`champion_before` returned.
        drift: JSON of `esci_tournament.tasks.data.drift.DriftReport`, {} for none.
        serves: Whether scorers use the data.

    Returns:
        The outcome, and the facts: `unchanged`, `data_version`, `champion`, `trial`, `serves`; unless unchanged also
        `champion_before` and `champion_after` ({} when sealed), `sealed`, `challenger` (its metrics out of fold),
        `bench`, `excluded`, `kept`, `verdict`, `promoted` and `drifted`.
    """
    ledger, name = workspace.ledger, workspace.settings.ensemble_name
    standing = ledger.standing(name).champion
    # What is unchanged was held before, maybe against the champion of then; what stays is the one of now
    version = standing.version if outcome.unchanged and standing else context.attempt.champion
    champion = f"{name}/{version}" if version is not None else ""
    facts: dict[str, Any] = {
        "unchanged": outcome.unchanged,
        "data_version": context.source.version,
        "champion": champion,
        "trial": context.trial,
        "serves": serves,
    }
    if not outcome.unchanged:
        after = (
            metrics_of_champion(ledger, name, context.attempt.champion) if context.attempt.champion is not None else {}
        )
        summary = outcome.summary
        facts |= {
            "champion_before": {} if summary.sealed else before,
            "champion_after": after if after.get("tournament") == context.id else {},
            "sealed": summary.sealed,
            "challenger": summary.out_of_fold.by_name() if summary.out_of_fold else {},
            "bench": [one.id for one in context.entrants if one.role == "bench"],
            "excluded": context.excluded,
            "kept": [f"{one.name}/{one.version}" for one in summary.models if one.status == "member"],
            "verdict": summary.verdict["outcome"],
            "promoted": summary.promoted,
            "drifted": [row["words"] for row in drift.get("rows", ()) if row["drifted"]],
        }
    renewed = Renewed(outcome, facts)
    known = [event for event in ledger.events(context.id, EVENT) if not event.payload["unchanged"]]
    if outcome.unchanged or not known:
        ledger.record_event(EVENT, champion, context.id, facts | {"words": in_words(facts)})
    return renewed


def publish(renewed: Renewed) -> None:
    """Show in Prefect's UI what the re-evaluation came to, where a server is configured. Never raises."""
    if not PREFECT_API_URL.value():
        return
    try:
        create_markdown_artifact(as_markdown(renewed.facts), "reevaluation", "Champion and bench evaluated again")
    except Exception as error:  # the ledger has the result; the run must not fail because it cannot be shown
        get_logger("renewal").warning("no artifact of the re-evaluation in Prefect: %s", error)
