"""The last stages: summarise, register the challenger, decide, promote, and close the record."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from esci_tournament.flows.announce import announce
from esci_tournament.flows.context import Checked, TournamentContext, TournamentOutcome, reports_folder, stage_task
from esci_tournament.flows.equipment import early_exit, equipment
from esci_tournament.flows.judging import (
    FILES,
    files_of,
    kept_recipes,
    pairs_of,
    prices,
    recipes_of,
    rejudging_inputs,
    scores_of,
)
from esci_tournament.flows.links import if_answered, this_run
from esci_tournament.flows.progress_reporting import stage
from esci_tournament.flows.report_files import write_report
from esci_tournament.flows.review_runs import open_review, review_required
from esci_tournament.registry import promotion
from esci_tournament.registry.addresses import masked
from esci_tournament.registry.files import digest_of, folder_digest
from esci_tournament.registry.manifests import FILE as MANIFEST_FILE
from esci_tournament.registry.manifests import Manifest, as_payload, code_version
from esci_tournament.registry.packaging import Interface, package_ensemble
from esci_tournament.registry.policies import in_force
from esci_tournament.registry.records import Decision, Promotion
from esci_tournament.registry.reviews import NO_PERSON
from esci_tournament.registry.versions import EnsembleVersion
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.candidates.enter import Entrant
from esci_tournament.tasks.candidates.profile import MeasuredCost
from esci_tournament.tasks.candidates.steps import fit_record, stored_shift
from esci_tournament.tasks.data.plans import read_plans, read_roles
from esci_tournament.tasks.data.store import open_dataset
from esci_tournament.tasks.ensemble import budget
from esci_tournament.tasks.ensemble.aggregate import Aggregator
from esci_tournament.tasks.ensemble.calibrate import Calibration, calibrate_ensemble, calibrate_members, tempered
from esci_tournament.tasks.ensemble.challenge import Challenge
from esci_tournament.tasks.ensemble.ensemble import AGGREGATOR, write_ensemble
from esci_tournament.tasks.ensemble.equipment import copy_equipment
from esci_tournament.tasks.ensemble.rows import ANSWER, EXAMPLE, OPTIONS, REQUIRED
from esci_tournament.tasks.ensemble.scores import stack
from esci_tournament.tasks.ensemble.trial import Trial, absent_members, metrics_of_each
from esci_tournament.tasks.ensemble.value import MOST_ROWS, whole_queries
from esci_tournament.tasks.report import sealing
from esci_tournament.tasks.report.examples import Answered, examples
from esci_tournament.tasks.report.machine import describe_machine
from esci_tournament.tasks.report.summarise import (
    describe_data,
    out_of_fold,
    refused_models,
    sides,
    summarise_models,
    summarise_selection,
    worth_tables,
)
from esci_tournament.tasks.report.summary import Summary
from esci_tournament.tasks.report.words import clean, headline


@stage_task
def summarise(
    workspace: Workspace,
    context: TournamentContext,
    checked: Checked,
    entrants: Sequence[Entrant],
    costs: Mapping[str, MeasuredCost],
    challenge: Challenge,
    trial: Trial,
) -> Summary:
    """Put together the summary, seal what may not be told, and write report and figures for the first time.

    Args:
        workspace: Settings and stores.
        context: The tournament.
        checked: The checks of its data.
        entrants: Those that have been trained and scored.
        costs: Candidate id -> measured cost.
        challenge: The challenger.
        trial: What judging came to.

    Returns:
        The summary as it may be told, before a decision.
    """
    with stage("report"):
        may_serve = wins(workspace, context, trial)
        settings = masked(workspace.settings.model_dump(mode="json"))
        events = workspace.ledger.events(context.id, "candidate_failed")
        calibrations, ensemble = _calibrate(workspace, context, entrants, challenge, may_serve)
        records = {one.id: fit_record(one.inputs.model_folder(workspace.stages)) for one in entrants}
        summary = Summary(
            tournament=context.id,
            started=context.started.isoformat(timespec="seconds"),
            seconds=max(0.0, time.time() - context.started.timestamp()),  # the clock may have been put back
            machine=describe_machine(context.entrants[0].inputs.device),
            data=describe_data(open_dataset(context.source.folder), read_roles(context.judged_roles.folder)),
            checks=checked.checks,
            data_docs=str(checked.docs),
            settings=settings,
            models=summarise_models(
                [(one.id, one.inputs.spec, one.role) for one in context.entrants],
                {event.subject: event.payload["reason"] for event in events if event.subject not in costs},
                challenge.result,
                trial,
                _alone_on_blend(workspace, context, entrants),
                {name: json.loads(cost.to_json()) for name, cost in costs.items()},
                {name: record["seconds"] for name, record in records.items()},
                calibrations,
                _covers(workspace, context, entrants),
                {name: record.get("curves", {}) for name, record in records.items()},
            )
            + refused_models(context.refused),
            champion_version="" if context.champion is None else str(context.champion.version),
            selection=summarise_selection(challenge.result, settings),
            shift=_shift(workspace, context, entrants),
            links=masked({"MLflow": workspace.models.tracking_uri, "ledger": workspace.settings.ledger_address}),
            ensemble_calibration_error=ensemble.error,
            ensemble_reliability=ensemble.reliability,
            early_exit=early_exit(workspace, context, challenge) if may_serve else {},
            drift=context.drift,
            excluded=context.excluded,
            differences=context.differences,
            examples=_examples(workspace, context, entrants, challenge),
            **sides(trial),
            **worth_tables(challenge.result),
            **out_of_fold(challenge.result),
        )
        summary = sealing.published(summary, may_serve)
        write_report(workspace, summary)
        return summary


@stage_task
def register(
    workspace: Workspace, context: TournamentContext, challenge: Challenge, trial: Trial, summary: Summary
) -> EnsembleVersion | None:
    """Register the challenger as a version of the ensemble when it may serve; log its report either way.

    Args:
        workspace: Settings and stores.
        context: The tournament.
        challenge: The challenger.
        trial: What judging came to.
        summary: The summary whose report has been written.

    Returns:
        The version, None when the challenger may not serve.

    Raises:
        StoreError: If a stage that its files come from is damaged.
        IntegrityError: If the files differ from their manifest when they are registered.
    """
    report = reports_folder(workspace, context.id)
    files = [report / "report.html", report / "summary.json", report / "figures"]
    if not wins(workspace, context, trial):
        workspace.models.log_report(context.id, files, _logged(summary))
        return None
    if known := workspace.roll.challenger(context.id):
        return known
    with stage("register the challenger"):
        stage_folder = workspace.stages.obtain(
            workspace.stages.key("ensemble", tournament=context.id),
            lambda empty: _assemble(workspace, context, challenge, empty / FILES),
            settled=True,
        )
        folder = stage_folder / FILES
        takes = rejudging_inputs(workspace, context, _costs_of(summary), challenge.best_alone)
        facts = _facts(context, challenge, takes["settings"])
        families = {one.inputs.spec.family for one in context.entrants if one.id in challenge.members}
        interface = Interface(EXAMPLE, ANSWER, REQUIRED, OPTIONS)
        # Made once: it holds a moment and a random number, so another one would have another digest
        package = workspace.stages.obtain(
            workspace.stages.key("package", tournament=context.id, files=folder_digest(folder)),
            lambda empty: package_ensemble(folder, empty, facts, interface=interface, families=families),
        )
        version = workspace.models.register_ensemble(
            folder,
            challenge.members,
            context.id,
            metrics=_logged(summary),
            files=files,
            package=package,
            taken=workspace.roll.numbers(),
        )
        manifest = Manifest.read(package / MANIFEST_FILE)
        content = {"members": list(challenge.members), "run_id": version.run_id} | takes | as_payload(manifest)
        workspace.ledger.record_ensemble(context.id, version.name, version.version, content)
        return version


def _logged(summary: Summary) -> dict[str, float]:
    """Return the challenger's metrics under the names that MLflow gets: the test split's have no prefix."""
    tested = summary.ensemble.by_name() if summary.ensemble else {}
    validated = summary.out_of_fold.by_name() if summary.out_of_fold else {}
    return tested | {f"out_of_fold_{name}": value for name, value in validated.items()}


def _costs_of(summary: Summary) -> dict[str, budget.Cost]:
    measured = {f"{one.name}/{one.version}": one.cost for one in summary.models if one.cost}
    return prices({name: MeasuredCost(**cost) for name, cost in measured.items()})


def wins(workspace: Workspace, context: TournamentContext, trial: Trial) -> bool:
    """Return whether the challenger may serve.

    Args:
        workspace: The home with the settings; `inaugurate` lets in a first champion.
        context: The tournament and the champion it meets, if there is one.
        trial: What judging came to.

    Returns:
        True if the verdict is promote, or lacks only a champion to compare with and settings let the first one in.
    """
    inaugural = workspace.settings.inaugurate and context.attempt.champion is None
    return trial.verdict.outcome == "promote" or (inaugural and "champion" in trial.verdict.missing)


def _assemble(workspace: Workspace, context: TournamentContext, challenge: Challenge, folder: Path) -> None:
    # Every file is read again: weights that changed since they were scored are not those that were judged
    all_inputs, stages = {entrant.id: entrant.inputs for entrant in context.entrants}, workspace.stages
    places = [(name, all_inputs[name].model_folder(stages, whole=True)) for name in challenge.members]
    folder.mkdir()
    write_ensemble(folder, places, challenge.aggregator)
    copy_equipment(stages.whole(equipment(workspace, context, challenge).name), folder)


def _facts(context: TournamentContext, challenge: Challenge, settings: Mapping[str, object]) -> dict[str, object]:
    """Return what the challenger's files were made from, for its manifest."""
    members = {one.id: one.inputs for one in context.entrants if one.id in challenge.members}
    return {
        "tournament": context.id,
        "members": {name: {"spec": one.spec.digest(), "content": one.content} for name, one in members.items()},
        "data": context.source.version,
        "settings": digest_of(settings),
        "code": code_version(),
    }


@stage_task
def decide(
    workspace: Workspace, context: TournamentContext, trial: Trial, version: EnsembleVersion | None
) -> Decision | None:
    """Record the decision where the verdict decides; where a review is required, and after a trial, leave it to one.

    Args:
        workspace: Settings and stores.
        context: The tournament.
        trial: What judging came to.
        version: The registered challenger, None when it may not serve.

    Returns:
        The decision, also one that was recorded before; None when there is nothing to decide or a review must come.
    """
    if version is None:
        return None
    verdict = next(row for row in workspace.ledger.verdicts(context.id) if row.against == context.attempt.against)
    made = next((one for one in workspace.ledger.decisions() if one.verdict == verdict.id), None)
    policy = in_force(workspace.ledger, workspace.settings)  # read now: it may have changed while models trained
    if made is not None or context.trial or policy.requires_review or review_required(workspace.settings):
        return made
    inaugural = trial.verdict.outcome != "promote"
    reason = "there was no champion: the first ensemble is installed" if inaugural else trial.verdict.reason
    return workspace.ledger.record_decision(verdict.id, "approve", NO_PERSON, reason)


@stage_task
def promote(
    workspace: Workspace, context: TournamentContext, version: EnsembleVersion | None, decision: Decision | None
) -> Promotion | None:
    """Record the promotion in the ledger and move the champion's alias.

    Args:
        workspace: Settings and stores.
        context: The tournament, whose attempt says which champion it was judged against.
        version: The registered challenger, None when it may not serve.
        decision: The approval, None while there is none.

    Returns:
        The promotion; None without a version or a decision.

    Raises:
        BusyError: If the champion changed since the verdict.
        UsageError: If the decision is no approval.
    """
    if version is None or decision is None:
        return None
    with stage("promote"):
        promoted = promotion.promote(
            workspace.ledger, workspace.models, version, decision, context.attempt.against, decision.reason
        )
        title = f"version {version.version} is champion, by {decision.reviewer}"
        links = if_answered(lambda: workspace.models.addresses(version)) | this_run()
        content = {"title": title, "text": decision.reason, "links": links, "tournament": context.id}
        announce("promotion", version.id, content)
        return promoted


@stage_task
def finish(
    workspace: Workspace,
    context: TournamentContext,
    summary: Summary,
    version: EnsembleVersion | None,
    decision: Decision | None,
    promoted: Promotion | None,
) -> TournamentOutcome:
    """Close the tournament, announce its verdict, and open its review if one is required.

    Args:
        workspace: Settings and stores.
        context: The tournament.
        summary: The summary before a decision.
        version: The registered challenger, None when it may not serve.
        decision: What was decided, None while it waits.
        promoted: The promotion, None without one.

    Returns:
        The outcome, with the final summary and the report's page.
    """
    outcome = close(workspace, context, summary, version, decision, promoted)
    _tell(workspace, outcome.summary)
    if outcome.summary.awaits_review:
        open_review(workspace, context.id)
    return outcome


def close(
    workspace: Workspace,
    context: TournamentContext,
    summary: Summary,
    version: EnsembleVersion | None,
    decision: Decision | None,
    promoted: Promotion | None,
) -> TournamentOutcome:
    """Write the final report, and record the end of the tournament in the ledger.

    Args:
        workspace: Settings and stores.
        context: The tournament.
        summary: The summary before a decision.
        version: The registered challenger, None when it may not serve.
        decision: What was decided, None while it waits.
        promoted: The promotion, None without one.

    Returns:
        The outcome, with the final summary and the report's page.
    """
    waits = version is not None and decision is None
    verdicts = workspace.ledger.verdicts(context.id)
    decided = {"decision": decision.outcome, "by": decision.reviewer, "reason": decision.reason} if decision else {}
    summary = replace(
        summary,
        decision=decided,
        ensemble_version=str(version.version) if version else "",
        manifest=next((one.manifest_digest for one in workspace.ledger.ensembles(context.id)), ""),
        promoted=promoted is not None,
        awaits_review=waits,
        review=next((row.id for row in verdicts if waits and row.against == context.attempt.against), None),
    )
    report = write_report(workspace, summary, with_figures=False)  # no figure shows what was decided
    standing = workspace.ledger.standing(workspace.settings.ensemble_name)
    workspace.ledger.finish_tournament(context.id, {"sequence": standing.sequence, "report": str(report)})
    return TournamentOutcome(summary, report)


def _tell(workspace: Workspace, summary: Summary) -> None:
    report = {"Full report": f"tournament report {summary.tournament}"}
    content = {
        "title": headline(summary),
        "text": clean(summary.verdict.get("reason", "")),
        "links": report | if_answered(lambda: workspace.models.report_addresses(summary.tournament)) | this_run(),
        "outcome": summary.verdict.get("outcome"),
        "promoted": summary.promoted,
        "awaits_review": summary.awaits_review,
    }
    announce("verdict", summary.tournament, content)


def _alone_on_blend(
    workspace: Workspace, context: TournamentContext, entrants: Sequence[Entrant]
) -> dict[str, dict[str, dict[str, float]]]:
    """Return each model's metrics, overall and by locale, on the pairs that sets of models are compared on."""
    pairs = pairs_of(context, learns=True)
    pairs = pairs.iloc[whole_queries(pairs["query_key"].to_numpy(), MOST_ROWS)]
    scores = scores_of(workspace, context.source.version, recipes_of(entrants))
    return metrics_of_each(pairs, scores, workspace.settings.primary_metric)


def _calibrate(
    workspace: Workspace, context: TournamentContext, entrants: Sequence[Entrant], challenge: Challenge, may_serve: bool
) -> tuple[dict[str, Calibration], Calibration]:
    """Return each model's calibration and the challenger's; tempered scores are kept beside the raw ones.

    The test pairs are read for a challenger that may serve alone: of another one their calibration is not told.
    """
    scores = scores_of(workspace, context.source.version, recipes_of(entrants))
    test = pairs_of(context, learns=False) if may_serve else None
    found = calibrate_members(pairs_of(context, learns=True), test, scores)
    for entrant, one in zip(entrants, scores, strict=True):
        temperature = found[one.member].temperature or 1.0
        workspace.scores.put_calibrated(
            entrant.id,
            context.source.version,
            entrant.inputs.digest(),
            temperature,
            tempered(one.probabilities, temperature),
        )
    return found, Calibration(None) if test is None else calibrate_ensemble(test, scores, challenge.aggregator)


def _covers(workspace: Workspace, context: TournamentContext, entrants: Sequence[Entrant]) -> dict[str, float]:
    stored = {one.id: workspace.scores.get(one.id, context.source.version, one.inputs.digest()) for one in entrants}
    return {name: scores.provenance.get("cover", 1.0) for name, scores in stored.items()}


def _examples(
    workspace: Workspace, context: TournamentContext, entrants: Sequence[Entrant], challenge: Challenge
) -> dict[str, Any]:
    """Return real pairs for the report, of those that sets of models are compared on: none is a test pair."""
    if not workspace.settings.report_examples:
        return {}
    pairs = pairs_of(context, learns=True)
    pairs = pairs.iloc[whole_queries(pairs["query_key"].to_numpy(), MOST_ROWS)]
    champion, recipes = _champion(workspace, context), recipes_of(entrants)
    if champion:  # its members are not all among the entrants if one failed
        recipes = kept_recipes(workspace, context, champion.members) | recipes
    ids = pairs["example_id"].to_numpy()
    scores = {one.member: one for one in scores_of(workspace, context.source.version, recipes)}

    def answered(aggregator: Aggregator, version: int | None = None) -> Answered:
        probabilities = aggregator.predict_proba(stack([scores[name] for name in aggregator.members], ids))
        return Answered(aggregator.labels(probabilities), probabilities, version)

    def texts(rows: np.ndarray) -> tuple[list[str], list[str]]:
        data, shown = open_dataset(context.source.folder), pairs.iloc[rows]
        places = shown["product"].to_numpy()
        titles = data.products["title"].iloc[np.maximum(places, 0)] if len(data.products) else [""] * len(places)
        named = [title if place >= 0 else "" for title, place in zip(titles, places, strict=True)]
        return data.pairs["query"].loc[shown.index].tolist(), named

    known = champion is not None and not absent_members(champion.members, scores)
    return examples(
        pairs,
        texts,
        {name: stack([scores[name]], ids)[:, 0] for name in challenge.members},
        answered(challenge.aggregator),
        answered(champion, context.champion.version) if champion and context.champion and known else None,
        workspace.settings.report_examples,
    )


def _champion(workspace: Workspace, context: TournamentContext) -> Aggregator | None:
    """Return the aggregator of the champion that the challenger met, None when there is none."""
    if context.champion is None:
        return None
    return Aggregator.load(files_of(workspace, context.champion) / AGGREGATOR)


def _shift(workspace: Workspace, context: TournamentContext, entrants: Sequence[Entrant]) -> dict[str, float]:
    if workspace.settings.out_of_sample == "blend":
        return {}
    plans = read_plans(context.roles.folder)
    found = {one.id: stored_shift(one.inputs, plans, workspace.stages) for one in entrants}
    return {name: value for name, value in found.items() if value is not None}
