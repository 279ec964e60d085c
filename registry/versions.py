"""Versions in the model registry: a candidate with its spec, an ensemble with its members."""

from __future__ import annotations

import datetime as dt
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from esci_tournament.registry.errors import SpecError
from esci_tournament.registry.foreign import LONGEST, plain, read_json
from esci_tournament.registry.specs import CandidateSpec, parse_spec

SPEC_TAG, DIGEST_TAG, FAMILY_TAG = "tournament.spec", "tournament.digest", "tournament.family"
ENTERED_TAG, WEIGHTS_TAG, RUN_TAG = "tournament.entered", "tournament.weights", "tournament.run"
# What became of a candidate: a projection of the ledger, kept up by the watcher.
STATE_TAG, REFUSED_TAG, FAILED_TAG, FLOW_RUN_TAG = (
    *("tournament.state", "tournament.refused"),
    *("tournament.failed", "tournament.flow_run"),
)
WITHDRAWN_TAG = "tournament.withdrawn"
MEMBERS_TAG, ID_TAG, MANIFEST_TAG = "tournament.members", "tournament.id", "tournament.manifest"
REGISTERED_BY_TAG = "tournament.registered_by"


class RegisteredVersion(Protocol):
    """The part of MLflow's `ModelVersion` that is read."""

    @property
    def name(self) -> str:
        """Name of the registered model."""

    @property
    def version(self) -> Any:
        """The version, as text or as a number: it depends on the store."""

    @property
    def run_id(self) -> str | None:
        """Id of the version's run, None or "" when it has none."""

    @property
    def creation_timestamp(self) -> int:
        """When it was created, milliseconds since 1970 (UTC)."""

    @property
    def tags(self) -> dict[str, str]:
        """Tag -> value."""


@dataclass(frozen=True)
class Version:
    """A :class:`RegisteredVersion` without MLflow, so that it can be kept; its fields are those of MLflow's."""

    name: str
    version: str
    run_id: str
    creation_timestamp: int
    tags: dict[str, str]

    @classmethod
    def of(cls, version: RegisteredVersion) -> Version:
        """Return a version of MLflow."""
        return cls(
            version.name,
            str(version.version),
            version.run_id or "",
            int(version.creation_timestamp),
            dict(version.tags),
        )


@dataclass(frozen=True)
class CandidateVersion:
    """One candidate in the registry.

    Attributes:
        name: Name of the candidate, its registered model.
        version: Its version there.
        run_id: Run that holds its weights and metrics, "" when it has none.
        spec: Its spec; None when it cannot be read, `complaint` then says why.
        entered: When it was registered (UTC, ISO), by the clock of the registry.
        weights: Artifact path of its weights in its run, "" before there are any.
        tags: All tags of the version.
        metrics: Metrics of its run; {} when they were not read.
        complaint: Why `spec` is None, else "".
    """

    name: str
    version: int
    run_id: str
    spec: CandidateSpec | None
    entered: str
    weights: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    complaint: str = ""

    @property
    def id(self) -> str:
        """`name/version`."""
        return f"{self.name}/{self.version}"

    @property
    def digest(self) -> str:
        """The digest of its spec, "" without one; what its tag says of that is not believed."""
        return self.spec.digest() if self.spec else ""


@dataclass(frozen=True)
class EnsembleVersion:
    """One ensemble in the registry.

    Attributes:
        name: Name of the ensemble, its registered model.
        version: Its version there.
        run_id: Run that holds its files and metrics, "" when it has none.
        tournament: Id of the tournament that built it, "" when it was made by hand.
        members: Candidate ids, in the order of the aggregator's columns.
        tags: All tags of the version.
    """

    name: str
    version: int
    run_id: str
    tournament: str
    members: tuple[str, ...]
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """`name/version`."""
        return f"{self.name}/{self.version}"


def run_of(version: RegisteredVersion) -> str:
    """Return the run that holds a version's weights and metrics, "" when it has none.

    The run it was registered with cannot be changed; only a version that was registered without one goes by its tag.
    """
    return version.run_id or version.tags.get(RUN_TAG) or ""


def read_spec_tag(text: str) -> dict[str, Any]:
    """Return what a tag `tournament.spec` holds.

    Args:
        text: A JSON object or TOML, with the keys of a `[[candidate]]` table; TOML may have the table around them, as
            in a candidates file.

    Returns:
        The keys, unchecked.

    Raises:
        ValueError: If it is neither, or holds several candidates: a version is one.

    Example:
        >>> read_spec_tag('family = "graph_network"'), read_spec_tag('{"family": "scores"}')
        ({'family': 'graph_network'}, {'family': 'scores'})
    """
    if text.lstrip().startswith("{"):
        return dict(read_json(text))
    if len(text) > LONGEST:
        raise ValueError(f"it has more than {LONGEST:,} characters")
    content = tomllib.loads(text)
    tables = content.get("candidate", [content])
    if not isinstance(tables, list) or len(tables) != 1 or not isinstance(tables[0], dict):
        raise ValueError("it holds several candidates; a version is one")
    return dict(tables[0])


def as_candidate(version: RegisteredVersion, metrics: Mapping[str, float]) -> CandidateVersion:
    """Return the candidate that a version's tags describe; the registered model's name is the candidate's.

    Args:
        version: The version in MLflow.
        metrics: Metrics of its run; {} when they were not read.

    Returns:
        The candidate; when its spec cannot be read, `spec` is None and `complaint` says why.
    """
    id = f"{version.name}/{version.version}"
    spec, complaint = None, ""
    try:
        content = read_spec_tag(version.tags.get(SPEC_TAG, ""))
        spec = parse_spec({**content, "name": version.name}, f"candidate {id}")
    except SpecError as error:
        complaint = str(error)
    except (ValueError, TypeError, RecursionError) as error:
        complaint = (
            f"candidate {id}: its tag {SPEC_TAG} is no JSON object, and no TOML ({plain(str(error))[:200]}); set it to "
            'the spec, such as {"family": "language_model", "checkpoint": "models:/NAME/VERSION"}'
        )
    created = dt.datetime.fromtimestamp(version.creation_timestamp / 1000, dt.UTC)
    return CandidateVersion(
        name=version.name,
        version=int(version.version),
        run_id=run_of(version),
        spec=spec,
        entered=created.isoformat(timespec="microseconds"),  # a tag could say anything, and who waits longest is next
        weights=version.tags.get(WEIGHTS_TAG, ""),
        tags=dict(version.tags),
        metrics=dict(metrics),
        complaint=complaint,
    )


def as_ensemble(version: RegisteredVersion) -> EnsembleVersion:
    """Return the ensemble that a version's tags describe; one without readable members has none."""
    try:
        members = tuple(map(str, read_json(version.tags.get(MEMBERS_TAG, "[]"))))
    except (ValueError, TypeError):  # made by hand: it may still be looked at
        members = ()
    return EnsembleVersion(
        name=version.name,
        version=int(version.version),
        run_id=run_of(version),
        tournament=version.tags.get(ID_TAG, ""),
        members=members,
        tags=dict(version.tags),
    )
