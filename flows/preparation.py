"""The first stages: load, validate, split, and who enters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from flows.held import Checked, Held, Roles, Source, recall, stage_task
from flows.reporting import stage
from registry.errors import NotFoundError
from registry.promotion import reconcile
from registry.specs import CandidateSpec
from registry.tournaments import find_attempt, question_of, untried
from registry.workspace import Workspace
from tasks.candidates.device import resolve_device
from tasks.candidates.enter import Entrant, make_bout, newcomers, readable
from tasks.data.load import load_esci
from tasks.data.logs import LogLimits
from tasks.data.plans import write_plans
from tasks.data.split import assign_roles, fit_plans
from tasks.data.store import open_dataset, save_dataset
from tasks.data.validate import raise_if_critical
from tasks.data.validate import validate as validate_dataset


@stage_task
def load(workspace: Workspace, origin: Path) -> Source:
    """Load the data folder and keep it as memory-mapped Arrow under its version."""
    with stage("load"):
        limits = LogLimits(workspace.settings.behaviour_cutoff, workspace.settings.bot_events)
        dataset = load_esci(origin, limits=limits)
        key = workspace.stages.key("load", version=dataset.version)
        folder = workspace.stages.obtain(key, lambda empty: save_dataset(dataset, empty))
        counts: dict[str, object] = {"pairs": len(dataset.pairs), "products": len(dataset.products)}
        if dataset.left_out:
            counts["left_out"] = [[one.file, one.reason, one.count] for one in dataset.left_out]
        workspace.ledger.record_data_version(dataset.version, {"origin": str(origin), **counts})
        return Source(folder, dataset.version, origin)


@stage_task
def validate(workspace: Workspace, source: Source) -> Checked:
    """Validate the data; a critical failure ends the tournament before anything is trained."""
    with stage("validate"):
        key = workspace.stages.key("validate", version=source.version)

        def build(folder: Path) -> None:
            result = validate_dataset(open_dataset(source.folder), folder / "docs")
            raise_if_critical(result)
            rows = [asdict(check) for check in result.checks]
            (folder / "checks.json").write_text(json.dumps(rows, default=str), encoding="utf-8")
            if result.docs:
                (folder / "docs.txt").write_text(str(result.docs.relative_to(folder)), encoding="utf-8")

        folder = workspace.stages.obtain(key, build)
        checks = json.loads((folder / "checks.json").read_text(encoding="utf-8"))
        return Checked(checks, folder / (folder / "docs.txt").read_text(encoding="utf-8"))


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
        ledger, models, settings = workspace.ledger, workspace.models, workspace.settings
        reconcile(ledger, models)
        for version in models.candidates():
            if version.spec is not None:
                ledger.record_candidate(version.id, version.digest, version.spec.family)
        wanted = newcomers(models, specs, untried(ledger), settings.allowed_pyfunc_sources)
        refused = {
            version.id: reason for version in wanted if (reason := readable(version, settings.allowed_pyfunc_sources))
        }
        device = str(resolve_device(settings.device))
        fresh = [
            Entrant(version, "newcomer", make_bout(version, source.version, roles.key, settings.seed, device))
            for version in wanted
            if version.id not in refused
        ]
        for entrant in fresh:
            ledger.record_candidate(entrant.id, entrant.version.digest, entrant.bout.spec.family)
        question = question_of(
            source.version, [[one.id, one.bout.recipe()] for one in fresh], settings.model_dump(mode="json")
        )
        attempt = find_attempt(ledger, settings.ensemble_name, question)
        if attempt.state == "finished":
            unchanged = recall(workspace, attempt.tournament)
            return Held(attempt, source, roles, unchanged=unchanged)
        champion = models.ensemble(attempt.champion) if attempt.champion is not None else None
        incumbents = champion.members if champion else ()
        entrants = [
            *(_incumbent(workspace, source, roles, member, device) for member in incumbents),
            *(one for one in fresh if one.id not in incumbents),
        ]
        if not entrants:
            waits = "; ".join(refused.values()) if refused else "no candidate waits"
            raise NotFoundError(
                f"nobody enters: there is no champion and {waits}; name some with --candidates FILE "
                "or register them with `tournament register FILE`"
            )
        payload = {"question": question, "against": attempt.against, "champion": attempt.champion}
        row = ledger.start_tournament(
            attempt.tournament, source.version, {one.id: one.role for one in entrants}, payload
        )
        return Held(attempt, source, roles, entrants, refused, champion, row.at)


def _incumbent(workspace: Workspace, source: Source, roles: Roles, member: str, device: str) -> Entrant:
    version = workspace.models.candidate(member)
    bout = make_bout(version, source.version, roles.key, workspace.settings.seed, device)
    return Entrant(version, "member", bout)
