"""What a tournament found out about each candidate, put into MLflow, where people compare models."""

from __future__ import annotations

from collections.abc import Mapping

from esci_tournament.flows.competition import log_of
from esci_tournament.flows.context import TournamentContext, stage_task
from esci_tournament.flows.differences import tell
from esci_tournament.flows.progress_reporting import stage
from esci_tournament.registry.errors import NotFoundError
from esci_tournament.registry.run_records import record_outcome
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.candidates.steps import FULL, fit_record
from esci_tournament.tasks.report.summary import ModelSummary, Summary


@stage_task
def log_candidates(workspace: Workspace, context: TournamentContext, summary: Summary) -> None:
    """Log parameters, numbers on the aggregator's pairs, costs, learning curves and log of every entrant to its run.

    A candidate whose run was deleted is told, and keeps no other from being logged.

    Args:
        workspace: The home with logs, stage store and MLflow.
        context: The tournament and its entrants.
        summary: Its summary as it may be told.
    """
    with stage("log the candidates"):
        step = [one.tournament for one in workspace.ledger.tournaments()].index(context.id) + 1
        models = {f"{one.name}/{one.version}": one for one in summary.models}
        for entrant in context.entrants:
            folder = workspace.stages.find(entrant.inputs.train_key(workspace.stages, FULL))
            curves = fit_record(folder).get("curves", {}) if folder is not None else {}
            log = log_of(workspace, entrant.version)
            try:
                version = workspace.models.candidate(entrant.id)
                numbers = numbers_of(models[entrant.id]) if entrant.id in models else {}
                record_outcome(workspace.models, version, step, numbers, curves, log)
            except NotFoundError as deleted:
                tell(workspace, {f"run of {entrant.id}": str(deleted)})


def numbers_of(model: ModelSummary) -> dict[str, float]:
    """Return what a tournament measured of a model, without anything of the test split: metric -> value."""
    found: dict[str, float | None] = {}
    if model.blend is not None:
        found |= {f"blend_{name}": value for name, value in model.blend.by_name().items()}
    for locale, metrics in model.blend_by_locale.items():
        found |= {f"blend_{name}_{locale}": value for name, value in metrics.by_name().items()}
    cost: Mapping[str, float] = model.cost
    found |= {name: cost.get(name) for name in ("memory_mib", "milliseconds_per_page_p50", "parameters")}
    found |= {"shap_share": model.utility, "drop_one": model.drop_one, "cover": model.cover}
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}
