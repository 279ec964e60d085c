"""The middle stages: train, score and profile every entrant, build the challenger, judge it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from esci_tournament.flows.context import TournamentContext, named_stage_task, stage_task
from esci_tournament.flows.differences import tell
from esci_tournament.flows.judging import (
    champion_side,
    judge_and_record,
    kept_recipes,
    pairs_of,
    prices,
    read_cost,
    recipes_of,
    scores_of,
    side_of,
)
from esci_tournament.flows.lease import gpu
from esci_tournament.flows.progress_reporting import report_progress, stage
from esci_tournament.registry.errors import CandidateError, NotFoundError
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.versions import FAILED_TAG
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.candidates.device import resolve_device
from esci_tournament.tasks.candidates.enter import Entrant
from esci_tournament.tasks.candidates.profile import MeasuredCost
from esci_tournament.tasks.candidates.steps import fit_record
from esci_tournament.tasks.candidates.supervise import supervise, worker_environment
from esci_tournament.tasks.ensemble.challenge import METHOD, SETTINGS, Challenge, build_challenge, releases
from esci_tournament.tasks.ensemble.trial import Trial
from esci_tournament.tasks.families.loading import candidate_class


@named_stage_task("train {entrant.version.name}")
def train(workspace: Workspace, context: TournamentContext, entrant: Entrant) -> str:
    """Train and score one entrant in a process of its own.

    Nothing is run when model and scores are in the stores already, and as they were stored.

    Args:
        workspace: Settings and stores.
        context: The tournament, with its data and roles.
        entrant: The candidate and all that its model follows from.

    Returns:
        Why it failed, "" when it did not.
    """
    name = entrant.version.name
    if entrant.inputs.is_done(workspace.stages, workspace.scores):
        report_progress(name, 1.0, "scores are in the store")
        return ""
    with gpu(workspace.settings):
        failures = supervise(
            [(entrant.inputs, "train")],
            dataset=context.source.folder,
            roles=context.roles.folder,
            stages=workspace.stages,
            scores=workspace.folder("scores"),
            log=workspace.folder("logs") / f"{name}-{entrant.version.version}.log",
            threads=threads_of(workspace.settings, context),
            timeout_s=workspace.settings.candidate_time,
            memory_gib=workspace.settings.candidate_memory,
            environment=worker_environment(workspace.settings, [entrant.inputs.spec.family]),
            progress=lambda share, doing: report_progress(name, share, doing),
        )
    done = "scored with the model it has" if entrant.inputs.fitted else "trained and scored"
    report_progress(name, 1.0, "failed" if failures else done)
    return failures.get(entrant.id, "")


def workers_of(settings: Settings) -> int:
    """Return how many candidates train at once: the setting `workers`, else one on a GPU, or one a core."""
    if settings.workers:
        return settings.workers
    device = resolve_device(settings.device)
    if device.type == "cuda":
        return 1
    return settings.cores


def threads_of(settings: Settings, context: TournamentContext) -> int:
    """Return the number of threads of each worker.

    It follows from the number of newcomers that entered, not from those left to train, so that a resumed tournament
    computes the same numbers.

    Args:
        settings: `workers`, `device` and `threads`.
        context: The tournament, whose entrants are counted.

    Returns:
        At least 1.
    """
    at_once = min(workers_of(settings), sum(entrant.role == "newcomer" for entrant in context.entrants) or 1)
    return max(1, settings.cores // at_once)


@stage_task
def survivors(workspace: Workspace, context: TournamentContext, reasons: Sequence[str]) -> list[Entrant]:
    """Record which entrants failed and why, and attach the weights of the others in MLflow.

    Args:
        workspace: Settings and stores.
        context: The tournament.
        reasons: Why each entrant failed, "" when it did not, in the order of `context.entrants`.

    Returns:
        The entrants that did not fail.

    Raises:
        CandidateError: If none is left.
    """
    failed = {entrant.id: why for entrant, why in zip(context.entrants, reasons, strict=True) if why}
    left = _without(workspace, context, context.entrants, context.refused | failed)
    with stage("attach weights"):
        for entrant in left:
            _attach(workspace, context, entrant)
    return left


def _without(
    workspace: Workspace, context: TournamentContext, entrants: Sequence[Entrant], failed: Mapping[str, str]
) -> list[Entrant]:
    # The newest reason is the one in force: after an interruption a candidate may fail for another one, or not at all.
    known = {
        event.subject: event.payload["reason"] for event in workspace.ledger.events(context.id, "candidate_failed")
    }
    for candidate, reason in failed.items():
        if known.get(candidate) != reason:
            workspace.ledger.record_event("candidate_failed", candidate, context.id, {"reason": reason})
        with suppress(NotFoundError):  # its version was deleted
            workspace.models.set_tags(candidate, {FAILED_TAG: reason[:4000]})
    left = [entrant for entrant in entrants if entrant.id not in failed]
    if not left:
        raise CandidateError("no candidate could be trained and scored: " + "; ".join(failed.values()))
    return left


def _attach(workspace: Workspace, context: TournamentContext, entrant: Entrant) -> None:
    """Put the weights beside the spec in MLflow, and the digest of the scores into the ledger."""
    inputs = entrant.inputs
    folder = inputs.model_folder(workspace.stages, whole=True)
    seconds = fit_record(folder)["seconds"]
    try:
        if FAILED_TAG in entrant.version.tags:  # it failed before, and does not any more
            workspace.models.set_tags(entrant.id, {FAILED_TAG: None})
        workspace.models.attach_weights(entrant.version, folder, {"fit_seconds": seconds})
    except NotFoundError as deleted:  # its version or its run: this home has the weights
        tell(workspace, {f"weights of {entrant.id}": str(deleted)})
    stored = workspace.scores.get(entrant.id, context.source.version, inputs.digest())
    workspace.ledger.record_scores(entrant.id, context.source.version, inputs.digest(), stored.provenance["digest"])


@stage_task
def profile(workspace: Workspace, context: TournamentContext, entrants: Sequence[Entrant]) -> dict[str, MeasuredCost]:
    """Measure what each model costs on the device at hand, one after the other, nothing else running.

    An entrant that cannot be measured is recorded as failed.

    Args:
        workspace: Settings and stores.
        context: The tournament.
        entrants: Those that have been trained and scored.

    Returns:
        Candidate id -> cost, of those that could be measured.

    Raises:
        CandidateError: If none could be measured.
    """
    with stage("profile"):
        stages = workspace.stages
        keys = {entrant.id: entrant.inputs.profile_key(stages) for entrant in entrants}
        missing = [entrant for entrant in entrants if stages.sound(keys[entrant.id]) is None]
        failures = {}
        if missing:
            with gpu(workspace.settings, workspace.settings.gpu_slots):
                failures = supervise(
                    [(entrant.inputs, "profile") for entrant in missing],
                    dataset=context.source.folder,
                    roles=context.roles.folder,
                    stages=stages,
                    scores=workspace.folder("scores"),
                    log=workspace.folder("logs") / "profile.log",
                    threads=workspace.settings.cores,
                    timeout_s=workspace.settings.candidate_time,
                    memory_gib=workspace.settings.candidate_memory,
                    environment=worker_environment(workspace.settings, [one.inputs.spec.family for one in missing]),
                    progress=lambda share, doing: report_progress("profile", share, doing),
                )
        measured = _without(workspace, context, entrants, failures)
        return {one.id: read_cost(stages.root / keys[one.id]) for one in measured}


@stage_task
def build(
    workspace: Workspace, context: TournamentContext, entrants: Sequence[Entrant], costs: Mapping[str, MeasuredCost]
) -> Challenge:
    """Aggregate, rank and select; the challenger is kept under all that it follows from.

    Args:
        workspace: Settings and stores.
        context: The tournament.
        entrants: Those that have been trained and scored; those without a cost are left out.
        costs: Candidate id -> measured cost.

    Returns:
        The challenger; ranking and selection are recorded in the ledger.
    """
    with stage("build the challenger"):
        settings = workspace.settings.only(SETTINGS)
        measured = [entrant for entrant in entrants if entrant.id in costs]
        key = workspace.stages.key(
            "challenge",
            scores=[[one.id, one.inputs.digest()] for one in measured],
            data=context.source.version,
            costs={name: [cost.memory_mib, cost.milliseconds_per_page_p50] for name, cost in costs.items()},
            settings=workspace.settings.model_dump(mode="json", include=set(SETTINGS)),
            method=METHOD,
            **releases(settings),
        )
        folder = workspace.stages.obtain(
            key,
            lambda empty: build_challenge(
                empty,
                pairs_of(context, learns=True),
                scores_of(workspace, context.source.version, recipes_of(measured)),
                prices(costs),
                settings,
                lambda share, doing: report_progress("build the challenger", share, doing),
                for_information(settings, measured),
            ),
            settled=True,
        )
        challenge = Challenge.load(folder)
        workspace.ledger.record_ranking(context.id, challenge.result["worth"])
        workspace.ledger.record_selection(context.id, settings.selection, challenge.result["selection"])
        return challenge


@stage_task
def judge(
    workspace: Workspace,
    context: TournamentContext,
    entrants: Sequence[Entrant],
    costs: Mapping[str, MeasuredCost],
    challenge: Challenge,
) -> Trial:
    """Judge the challenger against the champion on the test split; the look is recorded before it is taken.

    Args:
        workspace: Settings and stores.
        context: The tournament and the champion it meets, if there is one.
        entrants: Those whose scores are in the store.
        costs: Candidate id -> measured cost.
        challenge: The challenger.

    Returns:
        The trial, whose verdict is recorded in the ledger.

    Raises:
        BudgetError: If some members were measured on a CPU and others on a GPU.
    """
    with stage("judge"):
        champion = (
            champion_side(workspace, context.champion, prices(costs), workspace.settings) if context.champion else None
        )
        challenger = side_of(challenge.aggregator, prices(costs), workspace.settings)
        recipes = recipes_of(entrants)
        if champion:  # members that cannot take part any more have scores on this data, if they took part before
            recipes = kept_recipes(workspace, context, champion.aggregator.members) | recipes
        scores = scores_of(workspace, context.source.version, recipes)
        trial, _ = judge_and_record(
            workspace,
            context,
            scores,
            challenger,
            champion,
            workspace.settings,
            single=challenge.best_alone,
            version=context.champion,
        )
        return trial


def for_information(settings: Settings, entrants: Sequence[Entrant]) -> list[str]:
    """Return the entrants that may not become members, because they cannot score new pairs.

    Args:
        settings: `keep_score_files`, which lets them be members.
        entrants: Those that take part.

    Returns:
        Candidate ids.
    """
    if settings.keep_score_files:
        return []
    return [one.id for one in entrants if not candidate_class(one.inputs.spec.family).answers_new_pairs]
