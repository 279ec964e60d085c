"""The stages of a tournament as Prefect tasks: each a thin wrapper that finds a stored result or has it made."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.reporting import report, stage
from registry.errors import CandidateError, NotFoundError
from registry.models import EnsembleVersion
from registry.settings import Settings
from registry.specs import CandidateSpec
from registry.tournaments import Attempt, find_attempt, question_of, untried
from registry.workspace import Workspace
from tasks.candidates.device import resolve_device
from tasks.candidates.enter import Entrant, Role, make_bout, newcomers, readable
from tasks.candidates.profile import Cost
from tasks.candidates.steps import FULL, fit_record
from tasks.candidates.supervise import supervise
from tasks.data.load import load_esci
from tasks.data.plans import read_plans, write_plans
from tasks.data.split import assign_roles, fit_plans
from tasks.data.store import open_dataset, save_dataset
from tasks.data.validate import ValidationResult, raise_if_critical
from tasks.data.validate import validate as validate_dataset
from tasks.report.summary import Summary

# Nothing is cached or persisted by Prefect: each stage keeps its own result under its inputs, for any later run.
stage_task = task(cache_policy=NO_CACHE, persist_result=False)


@dataclass(frozen=True)
class Source:
    """A loaded data set: its folder in the stage store and its version."""

    folder: Path
    version: str
    origin: Path


@dataclass(frozen=True)
class Roles:
    """The roles of all pairs: their folder in the stage store and its key."""

    folder: Path
    key: str


@dataclass(frozen=True)
class Outcome:
    """What a tournament came to. `unchanged`: it had been held before, and nothing has changed since."""

    summary: Summary
    report: Path
    unchanged: bool = False


@dataclass(frozen=True)
class Held:
    """A tournament that is being held."""

    attempt: Attempt
    source: Source
    roles: Roles
    entrants: list[Entrant] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    champion: EnsembleVersion | None = None
    began: float = 0.0
    unchanged: Outcome | None = None

    @property
    def id(self) -> str:
        return self.attempt.tournament


@stage_task
def load(workspace: Workspace, origin: Path) -> Source:
    """Load the data folder and keep it as memory-mapped Arrow under its version."""
    with stage("load"):
        dataset = load_esci(origin)
        key = workspace.stages.key("load", version=dataset.version)
        folder = workspace.stages.obtain(key, lambda empty: save_dataset(dataset, empty))
        counts = {"pairs": len(dataset.pairs), "products": len(dataset.products)}
        workspace.ledger.record_data_version(dataset.version, {"origin": str(origin), **counts})
        return Source(folder, dataset.version, origin)


@stage_task
def validate(workspace: Workspace, source: Source) -> ValidationResult:
    """Validate the data; a critical failure ends the tournament before anything is trained."""
    with stage("validate"):
        key = workspace.stages.key("validate", version=source.version)

        def build(folder: Path) -> None:
            result = validate_dataset(open_dataset(source.folder), folder / "docs")
            raise_if_critical(result)
            (folder / "result.json").write_text(result.to_json(), encoding="utf-8")

        folder = workspace.stages.obtain(key, build)
        return ValidationResult.from_json((folder / "result.json").read_text(encoding="utf-8"), folder / "docs")


@stage_task
def split(workspace: Workspace, source: Source) -> Roles:
    """Give every pair its role, by its query alone."""
    with stage("split"):
        settings = workspace.settings
        how = settings.model_dump(include={"out_of_sample", "blend_share", "validation_share", "folds"})
        key = workspace.stages.key("split", version=source.version, **how)

        def build(folder: Path) -> None:
            dataset = open_dataset(source.folder)
            roles = assign_roles(dataset, **how)
            plans = fit_plans(dataset, roles, settings.out_of_sample, settings.validation_share)
            write_plans(folder, roles, plans)

        return Roles(workspace.stages.obtain(key, build), str(key))


@stage_task
def enter(workspace: Workspace, source: Source, roles: Roles, specs: Sequence[CandidateSpec]) -> Held:
    """Register who is new, find out which tournament this is, and gather champion's members and newcomers."""
    with stage("enter"):
        began = time.perf_counter()
        ledger, models, settings = workspace.ledger, workspace.models, workspace.settings
        for version in models.candidates():
            if version.spec is not None:
                ledger.record_candidate(version.id, version.spec.digest(), version.spec.family)
        wanted = newcomers(models, specs, untried(ledger))
        refused = {version.id: reason for version in wanted if (reason := readable(version))}
        device = str(resolve_device(settings.device))
        fresh = [
            Entrant(version, "newcomer", make_bout(version, source.version, roles.key, settings.seed, device))
            for version in wanted
            if version.id not in refused
        ]
        for entrant in fresh:
            spec = entrant.bout.spec
            ledger.record_candidate(entrant.id, spec.digest(), spec.family, {"name": spec.name})
        question = question_of(
            source.version, [[one.id, one.bout.recipe()] for one in fresh], settings.model_dump(mode="json")
        )
        attempt = find_attempt(ledger, settings.ensemble_name, question)
        if attempt.state == "finished":
            unchanged = recall(workspace, attempt.tournament)
            return Held(attempt, source, roles, began=began, unchanged=unchanged)
        champion = models.ensemble(attempt.champion) if attempt.champion is not None else None
        incumbents = champion.members if champion else ()
        entrants = [
            *(_incumbent(workspace, source, roles, member, device) for member in incumbents),
            *(one for one in fresh if one.id not in incumbents),
        ]
        if not entrants:
            raise NotFoundError(
                "nobody enters: there is no champion and no candidate waits; name some with --candidates FILE "
                "or register them with `tournament register FILE`"
            )
        payload = {"question": question, "against": attempt.against, "champion": attempt.champion}
        ledger.start_tournament(attempt.tournament, source.version, {one.id: one.role for one in entrants}, payload)
        return Held(attempt, source, roles, entrants, refused, champion, began)


def _incumbent(workspace: Workspace, source: Source, roles: Roles, member: str, device: str) -> Entrant:
    version = workspace.models.candidate(member)
    bout = make_bout(version, source.version, roles.key, workspace.settings.seed, device)
    role: Role = "member"
    return Entrant(version, role, bout)


def recall(workspace: Workspace, tournament: str) -> Outcome:
    """Return the outcome of a tournament that was held before."""
    folder = reports_folder(workspace, tournament)
    return Outcome(Summary.read(folder / "summary.json"), folder / "report.html", unchanged=True)


def reports_folder(workspace: Workspace, tournament: str) -> Path:
    """Return the folder of a tournament's report."""
    return workspace.folder("tournaments", tournament)


@stage_task(task_run_name="train {entrant.version.name}")
def train(workspace: Workspace, held: Held, entrant: Entrant) -> str:
    """Train and score one entrant in a process of its own; return why it failed, "" when it did not."""
    name = entrant.version.name
    if workspace.scores.has(entrant.id, held.source.version, entrant.bout.recipe()):
        report(name, 1.0, "scores are in the store")
        return ""
    failures = supervise(
        [(entrant.bout, "train")],
        dataset=held.source.folder,
        roles=held.roles.folder,
        stages=workspace.stages,
        scores=workspace.folder("scores"),
        log=workspace.folder("logs") / f"{name}-{entrant.version.version}.log",
        threads=threads_of(workspace.settings, held),
        timeout_s=workspace.settings.candidate_timeout_s,
        progress=lambda share, doing: report(name, share, doing),
    )
    report(name, 1.0, "failed" if failures else "trained and scored")
    return failures.get(entrant.id, "")


def workers_of(settings: Settings) -> int:
    """Return how many candidates train at once: as set, else one a GPU, or one a core."""
    if settings.workers:
        return settings.workers
    device = resolve_device(settings.device)
    if device.type == "cuda":
        return 1
    return os.cpu_count() or 1


def threads_of(settings: Settings, held: Held) -> int:
    """Return the threads of each worker.

    It follows from who entered, not from who is left to train: a resumed tournament computes the same numbers.
    """
    at_once = min(workers_of(settings), sum(entrant.role == "newcomer" for entrant in held.entrants) or 1)
    return max(1, (os.cpu_count() or 1) // at_once)


@stage_task
def survivors(workspace: Workspace, held: Held, reasons: Sequence[str]) -> list[Entrant]:
    """Record who failed and why, attach the others' weights in MLflow, and return the others.

    Raises:
        CandidateError: if nobody is left.
    """
    failed = held.refused | {
        entrant.id: reason for entrant, reason in zip(held.entrants, reasons, strict=True) if reason
    }
    known = {event.subject for event in workspace.ledger.events(held.id, "candidate_failed")}
    for candidate, reason in failed.items():
        if candidate not in known:
            workspace.ledger.record_event("candidate_failed", candidate, held.id, {"reason": reason})
        workspace.models.tag(workspace.models.candidate(candidate), {"tournament.failed": reason})
    left = [entrant for entrant in held.entrants if entrant.id not in failed]
    if not left:
        raise CandidateError("no candidate could be trained and scored: " + "; ".join(failed.values()))
    for entrant in left:
        attach(workspace, held, entrant)
    return left


def attach(workspace: Workspace, held: Held, entrant: Entrant) -> None:
    """Put the weights beside the spec in MLflow, and the digest of the scores into the ledger."""
    bout = entrant.bout
    folder = workspace.stages.find(bout.train_key(workspace.stages, FULL))
    if folder is not None:
        seconds = {"fit_seconds": fit_record(folder)["seconds"]}
        workspace.models.attach_weights(entrant.version, folder, seconds)
    stored = workspace.scores.get(entrant.id, held.source.version, bout.recipe())
    workspace.ledger.record_scores(entrant.id, held.source.version, bout.recipe(), stored.provenance["digest"])


@stage_task
def profile(workspace: Workspace, held: Held, standing: Sequence[Entrant]) -> dict[str, Cost]:
    """Measure what each model costs on the device at hand, one after the other, nothing else running."""
    with stage("profile"):
        keys = {entrant.id: entrant.bout.profile_key(workspace.stages) for entrant in standing}
        missing = [entrant for entrant in standing if workspace.stages.find(keys[entrant.id]) is None]
        if missing:
            failures = supervise(
                [(entrant.bout, "profile") for entrant in missing],
                dataset=held.source.folder,
                roles=held.roles.folder,
                stages=workspace.stages,
                scores=workspace.folder("scores"),
                log=workspace.folder("logs") / "profile.log",
                threads=os.cpu_count() or 1,
                progress=lambda share, doing: report("profile", share, doing),
            )
            if failures:
                raise CandidateError("; ".join(f"{name} cannot be profiled: {why}" for name, why in failures.items()))
        return {
            name: Cost.from_json((workspace.stages.root / key / "cost.json").read_text(encoding="utf-8"))
            for name, key in keys.items()
        }
