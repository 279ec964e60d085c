"""The first stages: load, validate and split the data, measure its drift, and find out which candidates enter."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from esci_tournament.flows.announce import announce
from esci_tournament.flows.context import Checked, Roles, Source, TournamentContext, recall, stage_task
from esci_tournament.flows.differences import tell
from esci_tournament.flows.intake import put_on_record
from esci_tournament.flows.judging import check_enough
from esci_tournament.flows.progress_reporting import report_progress, stage
from esci_tournament.flows.roster import Roster, call_back, incumbents, judged_roles, noticed
from esci_tournament.registry.data_reviews import offer
from esci_tournament.registry.errors import NotFoundError
from esci_tournament.registry.live_data import BEFORE, is_served, named_so_far, set_live_data
from esci_tournament.registry.promotion import reconcile
from esci_tournament.registry.roll import Enrolled
from esci_tournament.registry.specs import CandidateSpec
from esci_tournament.registry.stages import StageKey
from esci_tournament.registry.tournaments import (
    find_attempt,
    held_before,
    last_other_data,
    tournament_digest,
    tournament_facts,
    tried,
)
from esci_tournament.registry.withdrawals import withdrawals
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.candidates.device import resolve_device
from esci_tournament.tasks.candidates.enter import Entrant, make_inputs, newcomers, readable
from esci_tournament.tasks.data.bounds import Bounds
from esci_tournament.tasks.data.drift import DriftLimits, measure_drift, read_drift
from esci_tournament.tasks.data.load import load_esci
from esci_tournament.tasks.data.logs import LogLimits
from esci_tournament.tasks.data.plans import write_plans
from esci_tournament.tasks.data.reading import Reading
from esci_tournament.tasks.data.sources import obtain
from esci_tournament.tasks.data.split import assign_roles, fit_plans, stored_under
from esci_tournament.tasks.data.store import open_dataset, save_dataset


@stage_task
def fetch(workspace: Workspace, data: str | None = None) -> Path:
    """Return a folder with the newest data, fetched from where settings say when it is no folder.

    Args:
        workspace: Settings, and the home that data is fetched into.
        data: Folder, URL or `sql`; default: the setting `data`.

    Returns:
        The folder with the official files.

    Raises:
        UsageError: If nothing says where the data is, or a setting for `sql` is missing.
        DataError: If it cannot be fetched, or is not what it should be.
        StoreError: If the disk is full.
    """
    with stage("fetch"):
        return obtain(workspace.settings, data, lambda share, doing: report_progress("fetch", share, doing))


@stage_task
def load(workspace: Workspace, origin: Path) -> Source:
    """Load the data folder and keep it as memory-mapped Arrow under its version.

    Args:
        workspace: Stage store, ledger and the settings of which behaviour counts.
        origin: Folder with the official files.

    Returns:
        The data set in the stage store; its version is recorded in the ledger.

    Raises:
        DataError: If the files cannot be used.
    """
    with stage("load"):
        dataset = load_esci(origin, limits=LogLimits.of(workspace.settings), reading=Reading.of(workspace.settings))
        key = workspace.stages.key("load", version=dataset.version)
        folder = workspace.stages.obtain(key, lambda empty: save_dataset(dataset, empty))
        counts: dict[str, object] = {"pairs": len(dataset.pairs), "products": len(dataset.products)}
        if dataset.left_out:
            counts["left_out"] = [[one.file, one.reason, one.count] for one in dataset.left_out]
        workspace.ledger.record_data_version(dataset.version, {"origin": str(origin), **counts})
        return Source(folder, dataset.version, origin)


@stage_task
def validate(workspace: Workspace, source: Source) -> Checked:
    """Validate the data; a critical failure ends the tournament before anything is trained.

    Args:
        workspace: The home with the stage store.
        source: The data.

    Returns:
        The checks and their Data Docs.

    Raises:
        DataError: If a critical check fails.
    """
    with stage("validate"):
        bounds = Bounds.of(workspace.settings)
        key = _validation(workspace, source.version)

        def build(folder: Path) -> None:
            # Great Expectations takes seconds to load, which a run that goes on with valid data does without
            from esci_tournament.tasks.data.validate import raise_if_critical, validate

            result = validate(open_dataset(source.folder), folder / "docs", bounds)
            raise_if_critical(result)
            rows = [asdict(check) for check in result.checks]
            (folder / "checks.json").write_text(json.dumps(rows, default=str), encoding="utf-8")
            if result.docs:
                (folder / "docs.txt").write_text(str(result.docs.relative_to(folder)), encoding="utf-8")

        folder = workspace.stages.obtain(key, build)
        checks = json.loads((folder / "checks.json").read_text(encoding="utf-8"))
        return Checked(checks, folder / (folder / "docs.txt").read_text(encoding="utf-8"))


@stage_task
def serve(workspace: Workspace, source: Source, by: str, by_hand: bool = False) -> bool:
    """Have scorers take up the products and the behaviour of data that has been validated, or ask a reviewer first.

    Args:
        workspace: Ledger and the setting `refresh_served`.
        source: The data.
        by: What asks for it, such as "the weekly re-evaluation".
        by_hand: Whether a person asks for this alone; then "never", which is about re-evaluations, does not count.

    Returns:
        Whether scorers use it from here on; False when it waits for a reviewer, was refused by one, or when settings
        say that no newer data is served.
    """
    when, ledger, short = workspace.settings.refresh_served, workspace.ledger, source.version[:12]
    if when == "at_once" or (when == "never" and by_hand):
        set_live_data(ledger, source.version, by, f"newest data, from {source.origin}")
        return True
    if when == "review" and offer(ledger, source.version, str(source.origin)):
        sizes = next(one.payload or {} for one in ledger.data_versions() if one.digest == source.version)
        counts = f"{sizes.get('pairs', 0):,} pairs and {sizes.get('products', 0):,} products"
        content = {
            "title": f"Newer data waits for review: {short}",
            "text": f"{counts}. Scorers use it after `tournament data serve {short} --reason WHY`.",
            "data_version": source.version,
        }
        announce("review", f"data/{short}", content)
    return is_served(ledger, source.version)


def is_validated(workspace: Workspace, data_version: str) -> bool:
    """Return whether this home has a data version that passed every critical check under the settings in force."""
    stages = workspace.stages
    folder = stages.find(_validation(workspace, data_version))
    return folder is not None and stages.find(stages.key("load", version=data_version)) is not None


def _validation(workspace: Workspace, data_version: str) -> StageKey:
    bounds = asdict(Bounds.of(workspace.settings))
    return workspace.stages.key("validate", version=data_version, bounds=bounds)


@stage_task
def split(workspace: Workspace, source: Source) -> Roles:
    """Give every pair its role, which follows from its query alone.

    Args:
        workspace: Stage store and the settings of the split.
        source: The data.

    Returns:
        The roles, and the plans of what each model is fitted on, in the stage store.
    """
    with stage("split"):
        settings = workspace.settings
        how = stored_under(settings)
        key = workspace.stages.key("split", version=source.version, **how)

        def build(folder: Path) -> None:
            dataset = open_dataset(source.folder)
            roles = assign_roles(dataset, **how)
            plans = fit_plans(dataset, roles, settings.out_of_sample, settings.validation_share)
            write_plans(folder, roles, plans)

        return Roles(workspace.stages.obtain(key, build), str(key))


@stage_task
def drift(workspace: Workspace, source: Source) -> dict[str, Any]:
    """Return how far the data has drifted from that of the last finished tournament.

    Args:
        workspace: Ledger, stage store and the settings of what counts as drift.
        source: The data.

    Returns:
        JSON of `esci_tournament.tasks.data.drift.DriftReport`; {} when there is no older data, or it is not in the
        stage store.
    """
    with stage("drift"):
        settings, stages = workspace.settings, workspace.stages
        before = last_other_data(workspace.ledger, source.version)
        older = stages.find(stages.key("load", version=before)) if before else None
        if older is None:
            return {}
        limits = DriftLimits(settings.drift_distance, settings.drift_level, settings.drift_queries, settings.seed)
        key = stages.key("drift", before=before, now=source.version, limits=asdict(limits))
        return read_drift(
            stages.obtain(
                key,
                lambda folder: measure_drift(open_dataset(older), open_dataset(source.folder), limits).write(folder),
            )
        )


@stage_task
def enter(
    workspace: Workspace,
    source: Source,
    roles: Roles,
    specs: Sequence[CandidateSpec],
    versions: Sequence[str] = (),
    again: bool = False,
    drift: Mapping[str, Any] | None = None,
) -> TournamentContext:
    """Register new candidates, find out which tournament this is, and gather the champion's members and the newcomers.

    Args:
        workspace: Settings and stores.
        source: The data.
        roles: The role of each pair.
        specs: Candidates that enter; registered when they are new.
        versions: Ids (`name/version`) of registered candidates that enter. With neither, all enter that wait in MLflow.
        again: Whether it is a re-evaluation: the bench is tried again as well, and newcomers that a watcher has noticed
            are left to it.
        drift: What :func:`drift` returned, for the report.

    Returns:
        The tournament, recorded as started; with `unchanged` when it has been held before.

    Raises:
        NotFoundError: If there is neither a champion nor a candidate that may enter, or one that is named is unknown.
        SpecError: If a named spec points to something that is no checkpoint.
        DataError: If no pair is left to learn from or to judge, without those that a model of older data has seen.
        UsageError: If the aggregator would have too few queries to learn from.
    """
    with stage("enter"):
        ledger, settings = workspace.ledger, workspace.settings
        begun = ledger.last_event()
        reconcile(ledger, workspace.models)
        wanted = newcomers(workspace.roll, specs, tried(ledger), settings, versions)
        roster = call_back(workspace, source, roles) if again else Roster()
        if again:
            waiting = noticed(workspace) | {one.id for one in roster.entrants} | set(roster.excluded)
            wanted = [one for one in wanted if one.id not in waiting]
        gone = {
            id: f"candidate {id}: {why}; to have it tried: tournament candidates retry {id}"
            for id, why in withdrawals(ledger, [one.id for one in wanted]).items()
        }
        if not (specs or versions):  # nobody has named them
            wanted, gone = [one for one in wanted if one.id not in gone], {}
        differences = _differences(workspace, wanted, roster)
        fresh, refused = _admitted(workspace, source, roles, wanted, gone)
        said = settings.model_dump(mode="json")
        recipes = {one.id: one.inputs.digest() for one in (*roster.entrants, *fresh)}
        question = tournament_digest(source.version, [[*one] for one in recipes.items()], said)
        attempt = find_attempt(ledger, settings.ensemble_name, question)
        if again and attempt.state != "finished":
            attempt = held_before(ledger, source.version, recipes, said) or attempt
        if attempt.state == "finished":
            unchanged = recall(workspace, attempt.tournament)
            return TournamentContext(
                attempt, source, roles, unchanged=unchanged, excluded=roster.excluded, differences=differences
            )
        champion = workspace.roll.ensemble(attempt.champion) if attempt.champion is not None else None
        members, left_out = incumbents(workspace, source, roles, champion)
        changed = {f"files of {one.id}": one.note for one in members if one.note}
        tell(workspace, changed)
        theirs = champion.members if champion else ()
        refused = {id: why for id, why in refused.items() if id not in theirs} | left_out
        entrants = [
            *members,
            *(replace(one, role="bench") for one in roster.entrants if one.id not in theirs),
            *(one for one in fresh if one.id not in theirs),
        ]
        if not entrants:
            waits = "; ".join(refused.values()) if refused else "no candidate waits"
            without = "there is no champion" if champion is None else "no member of the champion can"
            raise NotFoundError(
                f"no candidate enters: {without} and {waits}; name some with --candidates FILE "
                "or register them with `tournament register FILE`"
            )
        judged = judged_roles(workspace, source, roles, entrants)
        check_enough(source.folder, (judged or roles).folder)
        facts = tournament_facts(
            {one.id: one.inputs.digest() for one in entrants},
            {one.id: [one.inputs.origin.data_version, one.inputs.origin.roles] for one in entrants},
            said,
        ) | {"contents": {one.id: one.inputs.content for one in entrants}}
        payload = {"question": question, "against": attempt.against, "champion": attempt.champion} | facts
        payload[BEFORE] = named_so_far(ledger)
        row = ledger.start_tournament(
            attempt.tournament, source.version, {one.id: one.role for one in entrants}, payload
        )
        return TournamentContext(
            attempt,
            source,
            roles,
            entrants,
            refused,
            champion,
            row.at,
            judged=judged,
            drift=dict(drift or {}),
            excluded=roster.excluded,
            differences=differences | changed,
            begun=begun,
        )


def _admitted(
    workspace: Workspace, source: Source, roles: Roles, wanted: Sequence[Enrolled], withdrawn: Mapping[str, str]
) -> tuple[list[Entrant], dict[str, str]]:
    """Return the newcomers that may enter, now on record, and why others may not: candidate id -> reason."""
    settings = workspace.settings
    reasons = {one.id: withdrawn.get(one.id) or one.refusal or readable(one.version, settings) for one in wanted}
    refused = {id: reason for id, reason in reasons.items() if reason}
    device = str(resolve_device(settings.device))
    fresh = [
        Entrant(one.version, "newcomer", make_inputs(one.version, source.version, roles.key, settings.seed, device))
        for one in wanted
        if one.id not in refused
    ]
    for entrant in fresh:
        put_on_record(workspace, entrant.version)
    return fresh, refused


def _differences(workspace: Workspace, wanted: Sequence[Enrolled], roster: Roster) -> dict[str, str]:
    """Tell in which way MLflow differs from the record of champion, bench and newcomers, and return it by id."""
    benched = [workspace.roll.candidate(one.id) for one in roster.entrants if one.role == "bench"]
    looked = workspace.roll.champion_differences() | {one.id: one.difference for one in (*benched, *wanted)}
    tell(workspace, looked)
    return {id: text for id, text in looked.items() if text}
