"""The members of a champion as they are loaded for serving, wherever they compute."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from esci_tournament.tasks.ensemble.ensemble import member_folders
from esci_tournament.tasks.families.loading import class_of, load_candidate
from esci_tournament.tasks.families.protocol import Candidate


@dataclass(frozen=True)
class Job:
    """What it takes to load a champion's members, and how they shall compute.

    Attributes:
        ensemble: folder of this machine's own, as `write_ensemble` wrote it. device: auto, cpu, cuda or cuda:N.
        slots: batches a replica computes at once; None for one on a CPU and every member on a GPU.
        threads: of torch, for each of them. most_pairs: that a model is given at once.
        products: Arrow file of the catalogue, None for none. data_version: of it.
        vectors: folder in which bi-encoders' product vectors are kept.
        precomputed: products whose embeddings are held, None for all. retrieved: product id -> how often it was.
    """

    ensemble: Path
    device: str
    slots: int | None
    threads: int
    most_pairs: int
    products: Path | None
    data_version: str
    vectors: Path
    precomputed: int | None = None
    retrieved: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able facts."""
        places = {"ensemble": str(self.ensemble), "vectors": str(self.vectors)}
        return asdict(self) | places | {"products": str(self.products) if self.products else None}

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> Self:
        """Return the job that :meth:`to_json` told."""
        places = {"ensemble": Path(facts["ensemble"]), "vectors": Path(facts["vectors"])}
        return cls(**{**facts, **places, "products": Path(facts["products"]) if facts["products"] else None})

    @property
    def folders(self) -> dict[str, Path]:
        """Candidate id -> folder of the fitted model, in the aggregator's order."""
        return member_folders(self.ensemble)

    def forkable(self) -> list[str]:
        """Return the members that may be loaded once for all replicas."""
        return [name for name, folder in self.folders.items() if class_of(folder).forkable]


def load_members(job: Job, names: Iterable[str], device: str) -> dict[str, Candidate]:
    """Return some of the members, holding what was computed ahead for them.

    Raises:
        TournamentError: if one cannot be loaded.
    """
    from esci_tournament.deployments.scorer.compute.embeddings import hold_vectors, keep_most_retrieved
    from esci_tournament.tasks.data.store import read_frame

    folders = job.folders
    members = {name: load_candidate(folders[name], device) for name in names}
    if job.precomputed is not None and job.products is not None:
        keep_most_retrieved(members, read_frame(job.products), job.precomputed, job.retrieved)
    hold_vectors(members, job.vectors, job.data_version, job.precomputed)
    return members
