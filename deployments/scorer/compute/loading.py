"""Loads the members of a champion for serving, in this process or in another one."""

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
    """Which members are loaded, and how they compute.

    Attributes:
        ensemble: folder of the ensemble, as `write_ensemble` wrote it; a copy of this machine's own, because damaged
            embeddings in it are repaired.
        device: auto, cpu, cuda or cuda:N.
        slots: batches that a replica computes at once; None for one on a CPU (for a replica in the scorer's own process
            one on each core), and one for each member on a GPU.
        threads: torch threads for each batch.
        most_pairs: largest number of pairs that a model is given at once.
        products: Arrow file of the catalogue, None for none.
        data_version: version of the catalogue's data.
        vectors: folder in which the product vectors of bi-encoders are kept.
        precomputed: number of products whose embeddings are held in memory, None for all.
        retrieved: product id -> how often it was asked for.
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
        """Return the job as a JSON-able mapping, paths as text."""
        places = {"ensemble": str(self.ensemble), "vectors": str(self.vectors)}
        return asdict(self) | places | {"products": str(self.products) if self.products else None}

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> Self:
        """Return the job in a mapping of :meth:`to_json`.

        Example:
            >>> job = Job(Path("ensemble"), "cpu", 1, 4, 512, None, "v1", Path("vectors"))
            >>> Job.from_json(job.to_json()) == job
            True
        """
        places = {"ensemble": Path(facts["ensemble"]), "vectors": Path(facts["vectors"])}
        return cls(**{**facts, **places, "products": Path(facts["products"]) if facts["products"] else None})

    @property
    def folders(self) -> dict[str, Path]:
        """Candidate id -> folder of the fitted model, in the aggregator's order."""
        return member_folders(self.ensemble)

    def forkable(self) -> list[str]:
        """Return the candidate ids of the members that can be loaded before a fork, once for all replicas."""
        return [name for name, folder in self.folders.items() if class_of(folder).forkable]


def load_members(job: Job, names: Iterable[str], device: str) -> dict[str, Candidate]:
    """Load some of the members, with the embeddings and vectors that were computed ahead for them.

    Args:
        job: what is loaded, and how.
        names: candidate ids.
        device: torch device, such as "cpu" or "cuda:0".

    Returns:
        Candidate id -> model.

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
