"""Who enters a tournament: the champion's members, and the newcomers, each checked before any time is spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from esci_tournament.registry.errors import SpecError
from esci_tournament.registry.models import Models
from esci_tournament.registry.settings import Settings, read_settings
from esci_tournament.registry.specs import CandidateSpec
from esci_tournament.registry.stages import StageStore
from esci_tournament.registry.versions import CandidateVersion
from esci_tournament.tasks.candidates.provenance import Seen, read_queries
from esci_tournament.tasks.candidates.steps import FULL, CandidateInputs, Origin, content_digest
from esci_tournament.tasks.families.declared import DeclaredSpec
from esci_tournament.tasks.families.loading import candidate_class

Role = Literal["member", "newcomer", "bench"]


@dataclass(frozen=True)
class Entrant:
    """One model in one tournament.

    Attributes:
        version: its version in the registry.
        role: member of the champion, newcomer, or from the bench.
        inputs: what its stages are keyed by.
    """

    version: CandidateVersion
    role: Role
    inputs: CandidateInputs

    @property
    def id(self) -> str:
        return self.version.id


def check_spec(spec: CandidateSpec, settings: Settings | None = None) -> None:
    """Check what a spec points to, and that the operator allows it.

    Args:
        spec: The spec.
        settings: Those of the operator; default: the settings in force.

    Raises:
        SpecError: if it cannot be used, or is not allowed; the message says what is missing.
    """
    if isinstance(spec, DeclaredSpec) and spec.trained_queries:
        read_queries(Path(spec.trained_queries))
    family = candidate_class(spec.family)
    family.permit(spec, settings or read_settings())
    family.check(spec)


def newcomers(
    models: Models,
    specs: Sequence[CandidateSpec],
    untried: set[str],
    settings: Settings | None = None,
    versions: Sequence[str] = (),
) -> list[CandidateVersion]:
    """Return the versions that want in: those named, specs registered now if need be; with none named, all that wait.

    Args:
        models: the registry.
        specs: candidates that were named; every one is checked before the first is registered.
        untried: ids the ledger knows and no finished tournament has tried. A version whose spec cannot be read is not
            in the ledger; it waits too, so that it is told why it cannot compete.
        settings: as :func:`check_spec`.
        versions: candidate ids (`name/version`) that were named, tried before or not.

    Raises:
        SpecError: if a named spec points to something that is no checkpoint.
        NotFoundError: if the registry has no such version.
    """
    if specs or versions:
        for spec in specs:
            check_spec(spec, settings)
        named = [models.candidate(id) for id in versions] + [models.register_candidate(spec) for spec in specs]
        return list({version.id: version for version in named}.values())
    known = models.candidates(with_metrics=False)
    return [version for version in known if version.id in untried or version.spec is None]


def readable(version: CandidateVersion, settings: Settings | None = None) -> str:
    """Return why a registered version cannot compete, "" when it can."""
    if version.spec is None:
        return version.complaint
    try:
        check_spec(version.spec, settings)
    except SpecError as error:
        return str(error)
    return ""


def unaltered(version: CandidateVersion, digest: str) -> str:
    """Return why a version that is on record with `digest` ("" when it is not) cannot compete, "" when it can."""
    if digest and version.digest != digest:
        return (
            f"candidate {version.id}: its spec is another one than when it entered; put it back, or register the new "
            "spec as a version of its own"
        )
    return ""


def make_inputs(
    version: CandidateVersion, data_version: str, roles: str, seed: int, device: str, fitted: Origin | None = None
) -> CandidateInputs:
    """Return what the stages of a readable candidate are keyed by; `fitted` when its model is that of older data."""
    assert version.spec is not None
    spec = version.spec
    return CandidateInputs(
        fitted=fitted,
        candidate=version.id,
        spec=spec,
        content=content_digest(spec),
        data_version=data_version,
        roles=roles,
        seed=seed if spec.seed is None else spec.seed,
        device=device,
    )


def with_model_of(inputs: CandidateInputs, origin: Origin, stages: StageStore) -> CandidateInputs | None:
    """Return the inputs of the model that was fitted on `origin`, None when that model cannot be used any more.

    It must be in the stage store, with all that it has seen on record.
    """
    if origin == inputs.origin:
        return inputs
    older = replace(inputs, fitted=origin)
    folder = stages.find(older.train_key(stages, FULL))
    return older if folder is not None and Seen.whole(folder) else None
