"""Decide which models enter a tournament, and check each of them before time is spent on training."""

from __future__ import annotations

import errno
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from esci_tournament.registry.complaints import Complaint, failure_of
from esci_tournament.registry.errors import SpecError
from esci_tournament.registry.roll import Enrolled, Roll
from esci_tournament.registry.settings import Settings, read_settings, using
from esci_tournament.registry.specs import CandidateSpec
from esci_tournament.registry.stages import StageStore
from esci_tournament.registry.versions import CandidateVersion
from esci_tournament.tasks.candidates.provenance import Seen, read_queries
from esci_tournament.tasks.candidates.steps import FULL, CandidateInputs, Origin, content_digest
from esci_tournament.tasks.families.declared import DeclaredSpec
from esci_tournament.tasks.families.loading import candidate_class

# Whatever a library raises on content that it did not expect, such as JSON that is nested 100,000 levels deep. One such
# version is refused, and keeps no other from competing.
UNCHECKABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
IMPOSSIBLE = (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ENOTDIR)

Role = Literal["member", "newcomer", "bench"]


@dataclass(frozen=True)
class Entrant:
    """One model in one tournament.

    Attributes:
        version: Its version in the registry.
        role: "member" of the champion, "newcomer", or from the "bench".
        inputs: What its stages are keyed by.
        note: What people should know of how it takes part, "" for nothing.
    """

    version: CandidateVersion
    role: Role
    inputs: CandidateInputs
    note: str = ""

    @property
    def id(self) -> str:
        """The candidate id, "name/version"."""
        return self.version.id


def check_spec(spec: CandidateSpec, settings: Settings | None = None) -> None:
    """Check what a spec points to, and that the operator allows it.

    Args:
        spec: The spec.
        settings: Those of the operator; default: the settings in force.

    Raises:
        SpecError: If it cannot be used, or is not allowed; the message says what is missing.
    """
    if isinstance(spec, DeclaredSpec) and spec.trained_queries:
        read_queries(Path(spec.trained_queries))
    family = candidate_class(spec.family)
    settings = settings or read_settings()
    with using(settings):  # what stands in MLflow's registry is looked up in that of these settings
        family.permit(spec, settings)
        family.check(spec)


def check_specs(specs: Sequence[CandidateSpec], settings: Settings | None = None) -> None:
    """Check several specs as :func:`check_spec` does, all of them before the first complaint.

    Args:
        specs: The specs.
        settings: As :func:`check_spec`.

    Raises:
        SpecError: If one of them cannot be used; the message says what is wrong with each.
    """
    complaints = []
    for spec in specs:
        try:
            check_spec(spec, settings)
        except SpecError as error:
            if len(specs) == 1:
                raise
            complaints.append(Complaint("", str(error), spec.name))
    if complaints:
        wrong = failure_of(SpecError, complaints, "candidates", lines=True)
        raise wrong


def newcomers(
    roll: Roll,
    specs: Sequence[CandidateSpec],
    tried: Collection[str],
    settings: Settings | None = None,
    versions: Sequence[str] = (),
) -> list[Enrolled]:
    """Return the candidates that are to enter: those that are named, or else all that wait.

    Specs that are named and not registered yet are registered now.

    Args:
        roll: The candidates of the home.
        specs: Candidates that were named; every one is checked before the first is registered.
        tried: Ids that a finished tournament has tried; with none named, all others in MLflow wait. One whose spec
            cannot be read is returned too, so that the report says why it cannot compete.
        settings: As :func:`check_spec`.
        versions: Candidate ids ("name/version") that were named, tried before or not.

    Returns:
        Distinct candidates, `versions` before `specs`; with none named, in the order in which they were registered.

    Raises:
        SpecError: If a named spec cannot be used, or is not allowed.
        NotFoundError: If neither the ledger nor the registry has a version that was named.
    """
    if specs or versions:
        check_specs(specs, settings)
        named = [roll.candidate(id) for id in versions] + [roll.register(spec) for spec in specs]
        return list({one.id: one for one in named}.values())
    # One that was deleted before it was tried was withdrawn.
    return [one for one in roll.candidates(with_metrics=False) if one.id not in tried and not one.gone]


def readable(version: CandidateVersion, settings: Settings | None = None) -> str:
    """Return why a registered version cannot compete, in a sentence, or "" when it can.

    Args:
        version: The version; its spec is checked as :func:`check_spec` does.
        settings: As :func:`check_spec`.

    Returns:
        The reason, or "".

    Raises:
        OSError: If a disk or a server does not answer now.
    """
    if version.spec is None:
        return version.complaint
    try:
        check_spec(version.spec, settings)
    except SpecError as error:
        return str(error)
    except UNCHECKABLE as error:
        return f"candidate {version.id}: what its spec points to cannot be read ({type(error).__name__}: {error})"
    except OSError as error:
        if error.errno not in IMPOSSIBLE:
            raise  # a disk or a server is not there: another look may find it
        return f"candidate {version.id}: its spec names a path that cannot be ({error.strerror})"
    return ""


def make_inputs(
    version: CandidateVersion, data_version: str, roles: str, seed: int, device: str, fitted: Origin | None = None
) -> CandidateInputs:
    """Return what the stages of a candidate with a readable spec are keyed by.

    Args:
        version: The version, as it is on record.
        data_version: Version of the data.
        roles: Key of the stage that gave every pair its role.
        seed: Seed of the tournament; that of the spec, if it has one, takes precedence.
        device: Torch device, as :func:`~esci_tournament.tasks.candidates.device.resolve_device` takes it.
        fitted: What its model was fitted on when that is older data.

    Returns:
        The inputs.

    Raises:
        SpecError: If its spec cannot be read; the message says why.
    """
    spec = version.spec
    if spec is None:
        raise SpecError(version.complaint or f"candidate {version.id}: it has no spec; register it again")
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
    """Return the inputs of a candidate with the model that was fitted on `origin`.

    Args:
        inputs: The inputs of the candidate on the data of today.
        origin: What the wanted model was fitted on.
        stages: The stage store.

    Returns:
        `inputs` itself when that is its origin; otherwise inputs with `fitted` set, or None unless that model is in the
        stage store with all that it has seen on record.
    """
    if origin == inputs.origin:
        return inputs
    older = replace(inputs, fitted=origin)
    folder = stages.sound(older.train_key(stages, FULL))
    return older if folder is not None and Seen.whole(folder) else None
