"""What a challenger needs to serve in real time, made at the end of its tournament."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from esci_tournament.flows.context import TournamentContext
from esci_tournament.flows.judging import pairs_of, prices, read_cost, recipes_of, scores_of
from esci_tournament.flows.progress_reporting import stage
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.ensemble.challenge import Challenge
from esci_tournament.tasks.ensemble.early_exit import EarlyExit
from esci_tournament.tasks.ensemble.equipment import SETTINGS, make_equipment


def equipment(workspace: Workspace, context: TournamentContext, challenge: Challenge) -> Path:
    """Return the folder with the challenger's aggregators of subsets and its early exit, made when there is none.

    Args:
        workspace: Settings and stores.
        context: The tournament, with its data and entrants.
        challenge: The challenger.

    Returns:
        The folder in the stage store, as `make_equipment` fills it.
    """
    stages, settings = workspace.stages, workspace.settings
    entrants = [one for one in context.entrants if one.id in challenge.members]
    measured = {one.id: stages.find(one.inputs.profile_key(stages)) for one in entrants}
    costs = prices({name: read_cost(folder) for name, folder in measured.items() if folder})
    key = stages.key(
        "equipment",
        members=challenge.members,
        data=context.source.version,
        scores=[[one.id, one.inputs.digest()] for one in entrants],
        aggregator=challenge.aggregator.digest(),
        costs={name: cost.milliseconds for name, cost in costs.items()},
        settings=settings.model_dump(mode="json", include=set(SETTINGS)),
    )

    def make(folder: Path) -> None:
        with stage("make ready for serving"):
            pairs = pairs_of(context, learns=True)
            scores = scores_of(workspace, context.source.version, recipes_of(entrants))
            worth = challenge.result["worth"]
            make_equipment(folder, pairs, scores, challenge.aggregator, worth, costs, settings.only(SETTINGS))

    return stages.obtain(key, make, settled=True)


def early_exit(workspace: Workspace, context: TournamentContext, challenge: Challenge) -> dict[str, Any]:
    """Return the challenger's rule of early exit for the summary.

    Args:
        workspace: Settings and stores.
        context: The tournament, with its data and entrants.
        challenge: The challenger.

    Returns:
        What `EarlyExit.to_json` returns.
    """
    return EarlyExit.load(equipment(workspace, context, challenge)).to_json()
