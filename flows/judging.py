"""What judging needs, and how it is done: once in a tournament, and again when another champion was installed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from esci_tournament.flows.context import TournamentContext
from esci_tournament.flows.looks import given_up, take_look
from esci_tournament.flows.quarantine import pairs_to_judge
from esci_tournament.registry.attestation import attested
from esci_tournament.registry.errors import StoreError
from esci_tournament.registry.manifests import differences
from esci_tournament.registry.records import VerdictRecord
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.tournaments import DECISIVE, finished, held_before
from esci_tournament.registry.versions import EnsembleVersion
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.candidates import profile
from esci_tournament.tasks.candidates.enter import Entrant
from esci_tournament.tasks.data.plans import judged_pairs
from esci_tournament.tasks.data.store import open_dataset
from esci_tournament.tasks.ensemble.aggregate import Aggregator, AggregatorParameters
from esci_tournament.tasks.ensemble.budget import Budget, Cost
from esci_tournament.tasks.ensemble.ensemble import AGGREGATOR
from esci_tournament.tasks.ensemble.fitting import check_folds
from esci_tournament.tasks.ensemble.scores import MemberScores
from esci_tournament.tasks.ensemble.trial import (
    SETTINGS,
    Side,
    Trial,
    absent_members,
    locales_of,
    run_trial,
    total_cost,
)

FILES = "ensemble"  # folder of the stage "ensemble": the stage's record beside it is no file of the ensemble

Facts = dict[str, Any]


def pairs_of(context: TournamentContext, learns: bool) -> pd.DataFrame:
    """Return the pairs that the aggregator learns from, or the test pairs.

    Args:
        context: The tournament, with its data and judged roles.
        learns: True for those that the aggregator learns from, False for the test pairs.

    Returns:
        Columns `example_id`, `label`, `query_key`, `locale`, `product` and `product_id`, in the order of the data.
    """
    return judged_pairs(context.source.folder, context.judged_roles.folder, learns)


def check_enough(dataset: Path, roles: Path) -> None:
    """Check that an aggregator can learn from the pairs at hand; after the training it would be too late.

    Args:
        dataset: Folder of the data.
        roles: Folder of the pairs' roles.

    Raises:
        UsageError: If there are too few queries.
    """
    learnt = judged_pairs(dataset, roles, learns=True)
    check_folds(learnt["query_key"].to_numpy(), AggregatorParameters().folds)


def recipes_of(entrants: Iterable[Entrant]) -> dict[str, str]:
    """Return the recipes under which the entrants' scores are kept: candidate id -> digest."""
    return {one.id: one.inputs.digest() for one in entrants}


def scores_of(workspace: Workspace, data: str, recipes: Mapping[str, str]) -> list[MemberScores]:
    """Return stored scores.

    Args:
        workspace: The home with the score store.
        data: Digest of the data that was scored.
        recipes: Candidate id -> recipe digest of its scores.

    Returns:
        The scores of each candidate, in the order of `recipes`.

    Raises:
        NotFoundError: If scores of one are not in the store.
        StoreError: If a score file is damaged.
    """
    stored = {name: workspace.scores.get(name, data, recipe) for name, recipe in recipes.items()}
    return [MemberScores(name, one.example_id, one.probabilities, one.out_of_sample) for name, one in stored.items()]


def read_cost(folder: Path) -> profile.MeasuredCost:
    """Return the cost that the profile stage stored.

    Args:
        folder: Folder of the stage, with `cost.json`.

    Returns:
        The measured cost.
    """
    return profile.MeasuredCost.from_json((folder / "cost.json").read_text(encoding="utf-8"))


def prices(costs: Mapping[str, profile.MeasuredCost]) -> dict[str, Cost]:
    """Return costs as the budget counts them.

    Args:
        costs: Candidate id -> measured cost.

    Returns:
        Candidate id -> peak memory in MiB and median milliseconds a page of 40 pairs.
    """
    return {name: Cost(one.memory_mib, one.milliseconds_per_page_p50, one.kind) for name, one in costs.items()}


def side_of(aggregator: Aggregator, costs: Mapping[str, Cost], settings: Settings) -> Side:
    """Return one side of a trial.

    Args:
        aggregator: The side's aggregator, which names its members.
        costs: Candidate id -> cost; where one is missing, the side's cost is None.
        settings: `execution`, which says whether times add up, and the budget.

    Returns:
        The side.

    Raises:
        BudgetError: If some members were measured on a CPU and others on a GPU.
    """
    return Side(aggregator, total_cost(aggregator.members, costs, Budget.of(settings)))


def champion_side(
    workspace: Workspace, champion: EnsembleVersion, costs: Mapping[str, Cost], settings: Settings
) -> Side:
    """Return a registered ensemble as one side of a trial.

    Args:
        workspace: The home with the model registry.
        champion: The ensemble version.
        costs: Candidate id -> cost; where one is missing, the side's cost is None.
        settings: As for :func:`side_of`.

    Returns:
        The side.

    Raises:
        BudgetError: If some members were measured on a CPU and others on a GPU.
        NotFoundError: If neither the registry nor this home has the ensemble's files.
        IntegrityError: If its aggregator is not the one that was approved.
        StoreError: If the files are those of other members than the ensemble is on record with.
    """
    aggregator = Aggregator.load(files_of(workspace, champion) / AGGREGATOR)
    if champion.members and aggregator.members != champion.members:
        raise StoreError(
            f"the files of {champion.id} are those of an ensemble of {', '.join(aggregator.members)}, and it is on "
            f"record with {', '.join(champion.members)}: somebody has changed them; put them back, or go back to the "
            "champion before: tournament champion rollback --reason"
        )
    return side_of(aggregator, costs, settings)


def files_of(workspace: Workspace, champion: EnsembleVersion) -> Path:
    """Return the folder of a registered ensemble whose aggregator is the one that was approved.

    It is what this home has registered, or else what MLflow has.

    Args:
        workspace: The home with stage store and model registry.
        champion: The ensemble version.

    Returns:
        The folder, which must not be changed.

    Raises:
        NotFoundError: If neither has it.
        IntegrityError: If this home has none, or another one, and MLflow has another one.
    """
    manifest = attested(workspace.ledger, champion.name, champion.version).manifest
    kept = workspace.stages.find(workspace.stages.key("ensemble", tournament=champion.tournament))
    if kept and not (manifest and differences(kept / FILES / AGGREGATOR, manifest.served.part(AGGREGATOR))):
        return kept / FILES
    return workspace.models.download(champion, manifest=manifest, part=AGGREGATOR)


def kept_recipes(workspace: Workspace, context: TournamentContext, candidates: Iterable[str]) -> dict[str, str]:
    """Return the recipes of scores that candidates have from earlier tournaments with the same data and roles.

    Args:
        workspace: The home with ledger and score store.
        context: The tournament whose data and roles count.
        candidates: Candidate ids.

    Returns:
        Candidate id -> recipe, of those whose scores are in the store.
    """
    data, roles = context.source.version, context.roles.key
    known: dict[str, str] = {}
    for held in finished(workspace.ledger):
        if held.data_version == data:
            models, recipes = held.payload.get("models", {}), held.payload.get("recipes", {})
            known |= {one: recipe for one, recipe in recipes.items() if models.get(one) == [data, roles]}
    for built in workspace.ledger.ensembles():
        facts = built.payload
        if (facts.get("data"), facts.get("roles"), facts.get("judged")) == (data, roles, roles):
            known |= facts["recipes"]
    wanted = {one: known[one] for one in candidates if one in known}
    return {one: recipe for one, recipe in wanted.items() if workspace.scores.has(one, data, recipe)}


def nothing_new_to_judge(workspace: Workspace, context: TournamentContext, left: Sequence[Entrant]) -> str:
    """Return why there is nothing to judge that was not judged before, in words; "" when there is something.

    A newcomer that failed leaves the champion's members behind. Their tournament has been held: a look at the test
    pairs would spend error probability on an answer that is known.

    Args:
        workspace: The home with ledger and settings.
        context: The tournament.
        left: The entrants that were trained, scored and measured.

    Returns:
        A clause with who failed and which tournament has judged the others.
    """
    settings = workspace.settings.model_dump(mode="json")
    held = held_before(workspace.ledger, context.source.version, recipes_of(left), settings)
    if context.champion is None or held is None:
        return ""
    names = {one.id for one in left}
    lost = [one.id for one in context.entrants if one.id not in names]
    lost += [one for one in context.refused if one not in lost]
    why = f"{', '.join(lost)} could not take part" if lost else "there is no newcomer"
    return (
        f"{why}, and the others were judged on this data before, in tournament {held.tournament}; the champion stays, "
        "and no error probability is spent"
    )


def judge_and_record(
    workspace: Workspace,
    context: TournamentContext,
    scores: Sequence[MemberScores],
    challenger: Side,
    champion: Side | None,
    settings: Settings,
    more: Mapping[str, Any] | None = None,
    single: str | None = None,
    version: EnsembleVersion | None = None,
    nothing_new: str = "",
) -> tuple[Trial, VerdictRecord]:
    """Judge the challenger on the test split, and record the verdict; the look is recorded before it is taken.

    Args:
        workspace: Ledger and stage store.
        context: The tournament, its data and roles; its attempt says which champion it is judged against.
        scores: Of every model that took part or is a member of a side.
        challenger: One side of the trial.
        champion: The other side, None when there is no champion.
        settings: Thresholds and budget.
        more: What the verdict's payload has beside the judge's findings.
        single: Candidate id of the model that is best alone; None for no comparison with it.
        version: The champion's, None when there is no champion.
        nothing_new: Why there is nothing to judge, as :func:`nothing_new_to_judge` says it: then no look is taken.

    Returns:
        The trial, and the verdict as it was recorded.
    """
    ledger, against = workspace.ledger, context.attempt.against
    pairs, left_out = pairs_to_judge(workspace, context, version)
    scored = {one.member for one in scores}
    compares = champion is not None and not nothing_new and not absent_members(champion.aggregator.members, scored)
    before = take_look(workspace, context, pairs, compares)
    if single not in scored:  # it failed since, or its tournament was held before this was compared
        single = None
    served = locales_of(open_dataset(context.source.folder).pairs)
    trial = run_trial(
        *(pairs, scores, challenger, champion, before, settings.only(SETTINGS), single, given_up(ledger), served),
        nothing_new=nothing_new,
    )
    verdict = replace(trial.verdict, cautions=(*trial.verdict.cautions, *left_out))
    trial = replace(trial, verdict=verdict)
    content = trial.verdict.to_dict() | dict(more or {})
    return trial, ledger.record_verdict(context.id, trial.verdict.outcome.replace("_", "-"), content, against)


def rejudging_inputs(
    workspace: Workspace, context: TournamentContext, costs: Mapping[str, Cost], best_alone: str | None
) -> Facts:
    """Return what it takes to judge the challenger of a tournament again; the ledger keeps it with the ensemble.

    Args:
        workspace: The home with the settings.
        context: The tournament.
        costs: Candidate id -> cost.
        best_alone: Candidate id of the model that is best alone, None when it is not known.

    Returns:
        `data` (version), `load`, `roles`, `judged` (keys in the stage store), `recipes` (candidate id -> digest),
        `best_alone`,
        `costs` (candidate id -> [MiB, milliseconds a page of 40, kind of device]) and the decisive `settings`.
    """
    return {
        "data": context.source.version,
        "load": context.source.folder.name,
        "roles": context.roles.key,
        "judged": context.judged_roles.key,
        "recipes": recipes_of(context.entrants),
        "best_alone": best_alone,
        "costs": {name: [cost.memory_mib, cost.milliseconds, cost.kind] for name, cost in costs.items()},
        "settings": workspace.settings.model_dump(mode="json", include=set(DECISIVE)),
    }
