"""The candidates that a re-evaluation tries again: the champion's members and the bench, each with its model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from esci_tournament.flows.context import Roles, Source
from esci_tournament.registry.bench import find_bench
from esci_tournament.registry.errors import NotFoundError
from esci_tournament.registry.queue import Queue
from esci_tournament.registry.roll import Enrolled
from esci_tournament.registry.tournaments import content_of, model_of
from esci_tournament.registry.versions import EnsembleVersion
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.candidates.device import resolve_device
from esci_tournament.tasks.candidates.enter import Entrant, Role, make_inputs, readable, with_model_of
from esci_tournament.tasks.candidates.provenance import Seen, without_seen
from esci_tournament.tasks.candidates.steps import FULL, Origin, is_plugged
from esci_tournament.tasks.data.plans import read_roles
from esci_tournament.tasks.data.store import open_dataset, write_frame
from esci_tournament.tasks.families.loading import candidate_class


@dataclass(frozen=True)
class Roster:
    """Members and bench that are tried again.

    Attributes:
        entrants: Members first, each group in its own order.
        excluded: Candidate id -> why it is not tried.
    """

    entrants: list[Entrant] = field(default_factory=list)
    excluded: dict[str, str] = field(default_factory=dict)


def call_back(workspace: Workspace, source: Source, roles: Roles) -> Roster:
    """Return the members of today's champion and the bench.

    A bench candidate whose model is gone is excluded; a member whose model is gone is fitted again.

    Args:
        workspace: Settings and stores.
        source: The data.
        roles: The role of each pair.

    Returns:
        The entrants, and who of the bench is excluded and why.
    """
    ledger, settings = workspace.ledger, workspace.settings
    standing = ledger.standing(settings.ensemble_name)
    champion = workspace.roll.ensemble(standing.champion.version) if standing.champion else None
    members = champion.members if champion else ()
    entrants, _ = incumbents(workspace, source, roles, champion)
    bench = find_bench(ledger, settings.ensemble_name, members, settings.bench_size)
    excluded = dict(bench.excluded)
    for candidate, tournament in bench.tournaments.items():
        found = _seat(workspace, source, roles, candidate, tournament)
        if isinstance(found, str):
            excluded[candidate] = found
        else:
            entrants.append(found)
    return Roster(entrants, excluded)


def incumbents(
    workspace: Workspace, source: Source, roles: Roles, champion: EnsembleVersion | None
) -> tuple[list[Entrant], dict[str, str]]:
    """Return the members of the champion, each with the model that serves.

    Args:
        workspace: Settings and stores.
        source: The data that they are scored on.
        roles: The role of each pair.
        champion: The champion, None when there is none.

    Returns:
        The entrants; and candidate id -> why, of the members that cannot take part any more and stop no others.
    """
    entrants, left_out = [], {}
    for member in champion.members if champion else ():
        try:
            entrants.append(incumbent(workspace, source, roles, member, champion))
        except NotFoundError as missing:
            left_out[member] = str(missing)
    return entrants, left_out


def incumbent(
    workspace: Workspace, source: Source, roles: Roles, member: str, champion: EnsembleVersion | None
) -> Entrant:
    """Return a member of the champion with the model that serves.

    Its spec is the one of record, whatever its tags in MLflow say. One whose version was deleted, or whose files have
    been changed since, goes on with the model that this home has, and is not fitted again under its name.

    Args:
        workspace: Settings and stores.
        source: The data that it is scored on.
        roles: The role of each pair.
        member: Candidate id.
        champion: The champion; None to fit the member again.

    Returns:
        The entrant. Its model is fitted again if settings say so, or if it is not in the stage store any more.

    Raises:
        NotFoundError: If no spec of it is on record that can be read, or neither its version nor its model is there.
    """
    known = workspace.roll.candidate(member)
    if known.version.spec is None:
        raise NotFoundError(known.version.complaint)
    fresh = _entrant(workspace, source, roles, known, "member")
    was = content_of(workspace.ledger, champion.tournament, member) if champion else None
    if was not in (None, fresh.inputs.content) and not is_plugged(fresh.inputs.spec):
        note = (
            f"candidate {member}: the files that its spec points to have been changed, or are gone, since it competed"
        )
        kept = replace(fresh, inputs=replace(fresh.inputs, content=was))
        found = _with_kept_model(workspace, kept, champion, note)
        return replace(
            found, note=f"{note}; its stored model goes on. Register changed files as a version of their own"
        )
    if known.gone:
        return _with_kept_model(workspace, fresh, champion, f"candidate {member}: its version was deleted from MLflow")
    if champion is None:
        return fresh
    return _with_its_model(workspace, fresh, champion.tournament) or fresh


def noticed(workspace: Workspace) -> set[str]:
    """Return the ids of the candidates that a watcher has noticed, and so queues or refuses."""
    return {arrival.candidate for arrival in Queue(workspace.ledger).arrivals()}


def judged_roles(workspace: Workspace, source: Source, roles: Roles, entrants: Sequence[Entrant]) -> Roles | None:
    """Return the roles without the judged pairs whose query a model of older data has seen.

    Args:
        workspace: The home with the stage store.
        source: The data.
        roles: The role of each pair.
        entrants: All that take part.

    Returns:
        Roles of their own in the stage store; None when no entrant has a model of older data.

    Raises:
        DataError: If nothing is left to learn from, or nothing to judge.
    """
    stages = workspace.stages
    models = sorted({one.inputs.train_key(stages, FULL) for one in entrants if one.inputs.fitted})
    if not models:
        return None
    key = stages.key("judged", roles=roles.key, models=models)

    def build(folder: Path) -> None:
        pairs = open_dataset(source.folder).pairs
        seen = (Seen.read(stages.root / model) for model in models)
        write_frame(without_seen(read_roles(roles.folder), pairs, seen), folder / "roles.arrow")

    return Roles(stages.obtain(key, build), str(key))


def _seat(workspace: Workspace, source: Source, roles: Roles, candidate: str, tournament: str) -> Entrant | str:
    """Return a model of the bench, or why it cannot compete."""
    known = workspace.roll.candidate(candidate)
    if known.gone:
        return "its version was deleted from MLflow; register its spec again to have it tried"
    if reason := readable(known.version, workspace.settings):
        return reason
    fresh = _entrant(workspace, source, roles, known, "bench")
    if not (workspace.settings.keep_score_files or candidate_class(fresh.inputs.spec.family).answers_new_pairs):
        return "a score file answers only for the pairs it holds"
    found = _with_its_model(workspace, fresh, tournament)
    return found or "its model is not in the stage store any more, or not all that it has seen is on record"


def _with_its_model(workspace: Workspace, entrant: Entrant, tournament: str) -> Entrant | None:
    """Return the entrant with the model it had in a tournament; as it is when it is to be fitted on the new data."""
    settings = workspace.settings
    if settings.refit or settings.out_of_sample == "kfold":  # fold models of older data do not cover the new queries
        return entrant
    return _with_older_model(workspace, entrant, tournament)


def _with_older_model(workspace: Workspace, entrant: Entrant, tournament: str) -> Entrant | None:
    known = model_of(workspace.ledger, tournament, entrant.id)
    inputs = with_model_of(entrant.inputs, Origin(*known), workspace.stages) if known else None
    return replace(entrant, inputs=inputs) if inputs else None


def _with_kept_model(workspace: Workspace, entrant: Entrant, champion: EnsembleVersion | None, why: str) -> Entrant:
    """Return an entrant that is not to be fitted again, with a model that is in the stage store."""
    kept = [entrant]
    if champion is not None and (older := _with_older_model(workspace, entrant, champion.tournament)):
        kept.append(older)
    for one in kept:
        if workspace.stages.find(one.inputs.train_key(workspace.stages, FULL)) is not None:
            return one
    raise NotFoundError(
        f"{why}, and its model is not in the stage store of this home; register its spec again to have it tried"
    )


def _entrant(workspace: Workspace, source: Source, roles: Roles, known: Enrolled, role: Role) -> Entrant:
    settings = workspace.settings
    device = str(resolve_device(settings.device))
    return Entrant(known.version, role, make_inputs(known.version, source.version, roles.key, settings.seed, device))
