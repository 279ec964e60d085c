"""The middle stages: train, score and profile every entrant, build the challenger, judge it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from esci_tournament.flows.announce import announce
from esci_tournament.flows.context import TournamentContext, named_stage_task, stage_task
from esci_tournament.flows.differences import tell
from esci_tournament.flows.judging import (
    champion_side,
    judge_and_record,
    kept_recipes,
    nothing_new_to_judge,
    pairs_of,
    prices,
    read_cost,
    recipes_of,
    scores_of,
    side_of,
)
from esci_tournament.flows.lease import gpu
from esci_tournament.flows.links import this_run
from esci_tournament.flows.progress_reporting import report_progress, stage, tell_prefect
from esci_tournament.registry.errors import CandidateError, NotFoundError, StoppedError
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.versions import FAILED_TAG, CandidateVersion
from esci_tournament.registry.withdrawals import stop_asked, withdrawals
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.candidates.device import resolve_device
from esci_tournament.tasks.candidates.enter import Entrant
from esci_tournament.tasks.candidates.profile import MeasuredCost
from esci_tournament.tasks.candidates.steps import fit_record
from esci_tournament.tasks.candidates.supervise import LOOK_S, supervise, worker_environment
from esci_tournament.tasks.candidates.training_log import TrainingLog
from esci_tournament.tasks.ensemble.challenge import METHOD, SETTINGS, Challenge, build_challenge, releases
from esci_tournament.tasks.ensemble.trial import Trial
from esci_tournament.tasks.families.loading import candidate_class
from esci_tournament.tasks.report.progress import STORED


@named_stage_task("train {entrant.id}")
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
    name, threads = entrant.id, threads_of(workspace.settings, context)
    log = TrainingLog(log_of(workspace, entrant.version))
    stopped = stopper(workspace, context)
    if entrant.inputs.is_done(workspace.stages, workspace.scores):
        report_progress(name, 1.0, STORED)
        return ""
    if why := stopped(entrant.id):
        report_progress(name, 1.0, why)
        return why

    def progress(share: float, doing: str) -> None:
        report_progress(name, share, doing)
        log.progress(share, doing)

    started = time.monotonic()
    with gpu(workspace.settings):
        log.begin(entrant.inputs, context.id, threads)
        failures = supervise(
            [(entrant.inputs, "train")],
            dataset=context.source.folder,
            roles=context.roles.folder,
            stages=workspace.stages,
            scores=workspace.folder("scores"),
            log=log.path,
            threads=threads,
            timeout_s=workspace.settings.candidate_time,
            memory_gib=workspace.settings.candidate_memory,
            environment=worker_environment(workspace.settings, [entrant.inputs.spec.family]),
            progress=progress,
            stopped=stopped,
        )
    done = "scored with the model it has" if entrant.inputs.fitted else "trained and scored"
    report_progress(name, 1.0, "failed" if failures else done)
    why = failures.get(entrant.id, "")
    for say in (log.say, tell_prefect):
        say(f"{name}: {'failed: ' + why if why else done} after {time.monotonic() - started:.1f} s")
    return why


def log_of(workspace: Workspace, version: CandidateVersion) -> Path:
    """Return the file with what is done with a candidate and what its code prints; it need not be there."""
    return workspace.folder("logs") / f"{version.name}-{version.version}.log"


def stopper(workspace: Workspace, context: TournamentContext) -> Callable[[str], str]:
    """Return a function that says why a candidate is not to go on in a tournament, "" when it is.

    Args:
        workspace: The home with the ledger.
        context: The tournament. Its members are stopped only with the tournament as a whole.

    Returns:
        The function, from candidate id to reason.
    """
    members = {one.id for one in context.entrants if one.role == "member"}

    def why(candidate: str) -> str:
        if asked := stop_asked(workspace.ledger, context.id, context.begun):
            return asked
        found = withdrawals(workspace.ledger, [candidate]) if candidate not in members else {}
        return str(found[candidate]) if found else ""

    return why


def heed(workspace: Workspace, context: TournamentContext) -> None:
    """End the tournament if somebody has cancelled it.

    Args:
        workspace: The home with the ledger.
        context: The tournament.

    Raises:
        StoppedError: If it was cancelled since this run of it began.
    """
    if why := stop_asked(workspace.ledger, context.id, context.begun):
        raise StoppedError(f"the tournament was {why}; the same command continues it")


def remaining(workspace: Workspace, context: TournamentContext, entrants: Sequence[Entrant]) -> list[Entrant]:
    """Return the entrants that nobody has withdrawn or cancelled; the others are recorded as failed, with the reason.

    Args:
        workspace: Settings and stores.
        context: The tournament.
        entrants: Those that have not failed so far.

    Raises:
        StoppedError: If the tournament itself was cancelled.
        CandidateError: If none is left.
    """
    heed(workspace, context)
    return _without(workspace, context, entrants, _withdrawn(workspace, entrants))


def _withdrawn(workspace: Workspace, entrants: Sequence[Entrant]) -> dict[str, str]:
    asked = [one.id for one in entrants if one.role != "member"]
    return {id: str(one) for id, one in withdrawals(workspace.ledger, asked).items()}


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
        StoppedError: If the tournament was cancelled.
    """
    heed(workspace, context)
    failed = {entrant.id: why for entrant, why in zip(context.entrants, reasons, strict=True) if why}
    withdrawn = _withdrawn(workspace, context.entrants)
    left = _without(workspace, context, context.entrants, context.refused | failed | withdrawn)
    with stage("attach weights"):
        for entrant in left:
            _attach(workspace, context, entrant)
    return left


def _tell(context: TournamentContext, candidate: str, reason: str) -> None:
    could_not_enter = candidate in context.refused
    content = {
        "title": f"Candidate {candidate} " + ("could not enter its tournament" if could_not_enter else "failed"),
        "text": f"{reason}\nTournament {context.id} goes on with the others, if any are left.",
        "links": this_run(),
        "tournament": context.id,
        "outcome": "refused" if could_not_enter else "failed",
    }
    announce("failure", candidate, content)


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
            _tell(context, candidate, reason)
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
                    stopped=stopper(workspace, context),
                )
        heed(workspace, context)
        measured = _without(workspace, context, entrants, failures)
        return {one.id: read_cost(stages.root / keys[one.id]) for one in measured}


@stage_task
def build(
    workspace: Workspace, context: TournamentContext, entrants: Sequence[Entrant], costs: Mapping[str, MeasuredCost]
) -> Challenge | None:
    """Aggregate, rank and select; the challenger is kept under all that it follows from.

    Args:
        workspace: Settings and stores.
        context: The tournament.
        entrants: Those that have been trained and scored; those without a cost are left out.
        costs: Candidate id -> measured cost.

    Returns:
        The challenger; ranking and selection are recorded in the ledger. None, and nothing is recorded, when one of
        the entrants was withdrawn meanwhile.

    Raises:
        StoppedError: If the tournament was cancelled.
    """
    with stage("build the challenger"):
        settings = workspace.settings.only(SETTINGS)
        measured = [entrant for entrant in entrants if entrant.id in costs]
        looked = time.monotonic()

        def report(share: float, doing: str) -> None:
            nonlocal looked
            report_progress("build the challenger", share, doing)
            if time.monotonic() - looked > LOOK_S:
                looked = time.monotonic()
                heed(workspace, context)

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
                report,
                for_information(settings, measured),
            ),
            settled=True,
        )
        challenge = Challenge.load(folder)
        if _withdrawn(workspace, measured):
            return None
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
            nothing_new=nothing_new_to_judge(workspace, context, [one for one in entrants if one.id in costs]),
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
