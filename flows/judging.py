"""What judging takes, and how it is done: once for a tournament, and again when another champion was installed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from esci_tournament.flows.context import TournamentContext
from esci_tournament.flows.looks import looks_before
from esci_tournament.registry.records import VerdictRecord
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.tournaments import DECISIVE
from esci_tournament.registry.versions import EnsembleVersion
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.candidates import profile
from esci_tournament.tasks.candidates.enter import Entrant
from esci_tournament.tasks.data.plans import judged_pairs
from esci_tournament.tasks.data.store import digest_of_test
from esci_tournament.tasks.ensemble.aggregate import Aggregator
from esci_tournament.tasks.ensemble.budget import Budget, Cost
from esci_tournament.tasks.ensemble.scores import MemberScores
from esci_tournament.tasks.ensemble.trial import SETTINGS, Side, Trial, absent_members, run_trial, total_cost

Facts = dict[str, Any]


def pairs_of(context: TournamentContext, learns: bool) -> pd.DataFrame:
    """Return the pairs that the aggregator learns from, or the test pairs."""
    return judged_pairs(context.source.folder, context.judged_roles.folder, learns)


def recipes_of(entrants: Iterable[Entrant]) -> dict[str, str]:
    """Return under which recipe the scores of each entrant are kept."""
    return {one.id: one.inputs.digest() for one in entrants}


def scores_of(workspace: Workspace, data: str, recipes: Mapping[str, str]) -> list[MemberScores]:
    """Return stored scores.

    Args:
        workspace: where they are kept.
        data: the version of the data that was scored.
        recipes: candidate id -> recipe of its scores.

    Raises:
        NotFoundError: if scores of one are not in the store.
    """
    stored = {name: workspace.scores.get(name, data, recipe) for name, recipe in recipes.items()}
    return [MemberScores(name, one.example_id, one.probabilities, one.out_of_sample) for name, one in stored.items()]


def read_cost(folder: Path) -> profile.MeasuredCost:
    """Return the cost that the profile stage stored."""
    return profile.MeasuredCost.from_json((folder / "cost.json").read_text(encoding="utf-8"))


def prices(costs: Mapping[str, profile.MeasuredCost]) -> dict[str, Cost]:
    """Return costs as the budget counts them: peak MiB, and median milliseconds a page of 40."""
    return {name: Cost(one.memory_mib, one.milliseconds_per_page_p50, one.kind) for name, one in costs.items()}


def side_of(aggregator: Aggregator, costs: Mapping[str, Cost], settings: Settings) -> Side:
    """Return one side of a trial; what it costs is None where that was not measured.

    Raises:
        BudgetError: if some members were measured on a CPU and others on a GPU.
    """
    return Side(aggregator, total_cost(aggregator.members, costs, Budget.of(settings)))


def champion_side(
    workspace: Workspace, champion: EnsembleVersion, costs: Mapping[str, Cost], settings: Settings
) -> Side:
    """Return a registered ensemble as one side of a trial; errors as in :func:`side_of`."""
    return side_of(Aggregator.load(workspace.models.download(champion) / "aggregator"), costs, settings)


def judge_and_record(
    workspace: Workspace,
    context: TournamentContext,
    scores: Sequence[MemberScores],
    challenger: Side,
    champion: Side | None,
    settings: Settings,
    more: Mapping[str, Any] | None = None,
) -> tuple[Trial, VerdictRecord]:
    """Judge the challenger on the test split, and record the verdict; the look is on record before it is taken.

    Args:
        workspace: ledger and stage store.
        context: the tournament, its data and roles; its attempt says which champion it is judged against.
        scores: of every model that took part or is a member of a side.
        challenger: one side of the trial.
        champion: the other side, None when there is no champion.
        settings: thresholds and budget.
        more: what the verdict says beside the judge's findings.

    Returns:
        The trial, and the verdict as it was recorded.
    """
    ledger, pairs, against = workspace.ledger, pairs_of(context, learns=False), context.attempt.against
    looks = looks_before(workspace, context, pairs)
    scored = {one.member for one in scores}
    if champion is not None and not absent_members(champion.aggregator.members, scored):  # else nothing is compared
        ledger.record_look(digest_of_test(pairs), context.id, against)
    trial = run_trial(pairs, scores, challenger, champion, looks, settings.only(SETTINGS))
    content = trial.verdict.to_dict() | dict(more or {})
    return trial, ledger.record_verdict(context.id, trial.verdict.outcome.replace("_", "-"), content, against)


def rejudging_inputs(workspace: Workspace, context: TournamentContext, costs: Mapping[str, Cost]) -> Facts:
    """Return what it takes to judge the challenger of a tournament again; it stands in the ledger with the ensemble."""
    return {
        "data": context.source.version,
        "load": context.source.folder.name,
        "roles": context.roles.key,
        "judged": context.judged_roles.key,
        "recipes": recipes_of(context.entrants),
        "costs": {name: [cost.memory_mib, cost.milliseconds, cost.kind] for name, cost in costs.items()},
        "settings": workspace.settings.model_dump(mode="json", include=set(DECISIVE)),
    }
