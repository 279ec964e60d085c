"""Who enters a tournament: the champion's members, and the newcomers, each checked before any time is spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from registry.errors import SpecError
from registry.models import CandidateVersion, Models
from registry.specs import CandidateSpec, GraphNetworkSpec, LanguageModelSpec
from tasks.candidates.checkpoint import check_checkpoint
from tasks.candidates.steps import Bout, content_digest

Role = Literal["member", "newcomer", "bench"]


@dataclass(frozen=True)
class Entrant:
    """One model in one tournament.

    Attributes:
        version: its version in the registry.
        role: member of the champion, newcomer, or from the bench.
        bout: what its stages are keyed by.
    """

    version: CandidateVersion
    role: Role
    bout: Bout

    @property
    def id(self) -> str:
        return self.version.id


def check_spec(spec: CandidateSpec) -> None:
    """Check what the spec points to: a checkpoint folder must be one, with safetensors weights.

    Raises:
        SpecError: if it is not; the message says what is missing.
    """
    if isinstance(spec, LanguageModelSpec):
        check_checkpoint(spec)
    if isinstance(spec, GraphNetworkSpec) and spec.recipe.encoder != "lsa":
        check_checkpoint(LanguageModelSpec(name=spec.name, checkpoint=spec.recipe.encoder))


def newcomers(models: Models, specs: Sequence[CandidateSpec], untried: set[str]) -> list[CandidateVersion]:
    """Return the versions that want in: those of `specs`, registered now if need be; without specs, all that wait.

    Args:
        models: the registry.
        specs: candidates that were named; every one is checked before the first is registered.
        untried: ids the ledger knows and no finished tournament has tried. A version whose spec cannot be read is not
            in the ledger; it waits too, so that it is told why it cannot compete.

    Raises:
        SpecError: if a named spec points to something that is no checkpoint.
    """
    if specs:
        for spec in specs:
            check_spec(spec)
        return [models.register_candidate(spec) for spec in specs]
    return [version for version in models.candidates() if version.id in untried or version.spec is None]


def readable(version: CandidateVersion) -> str:
    """Return why a registered version cannot compete, "" when it can."""
    if version.spec is None:
        return version.complaint
    try:
        check_spec(version.spec)
    except SpecError as error:
        return str(error)
    return ""


def make_bout(version: CandidateVersion, data_version: str, roles: str, seed: int, device: str) -> Bout:
    """Return what the stages of a readable candidate are keyed by."""
    assert version.spec is not None
    spec = version.spec
    return Bout(
        candidate=version.id,
        spec=spec,
        content=content_digest(spec),
        data_version=data_version,
        roles=roles,
        seed=seed if spec.seed is None else spec.seed,
        device=device,
    )
