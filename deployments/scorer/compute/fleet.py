"""Makes the replicas of a champion, in this process or in processes of their own (`forked`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

from esci_tournament.deployments.scorer.compute.forked import ProcessFleet, Zygote
from esci_tournament.deployments.scorer.compute.loading import Job, load_members
from esci_tournament.deployments.scorer.compute.replica import Ended, LocalReplica, Replica
from esci_tournament.registry.processes import usable_cores
from esci_tournament.registry.settings import Settings
from esci_tournament.tasks.families.protocol import Candidate


class Fleet(Protocol):
    """The interface that makes a champion's replicas.

    Attributes:
        size: number of replicas that the champion should have.
        devices: torch devices that they compute on.
    """

    size: int
    devices: list[str]

    async def replica(self, ended: Ended, patient: bool = False) -> Replica:
        """Return one more replica, ready to compute.

        Args:
            ended: called with the replica and the reason when it is gone without having been told to end.
            patient: whether it has a low priority, so that it gives way to everything else on the machine.

        Returns:
            The replica.

        Raises:
            TournamentError: if it does not start.
        """

    async def embed(self) -> dict[str, int]:
        """Compute product vectors, or find those that are kept, and have all replicas use them.

        Returns:
            Candidate id -> number of products whose vectors it uses.

        Raises:
            TournamentError: if they cannot be computed.
        """

    def close(self) -> None:
        """Make no more replicas, and release the members."""


class LocalFleet:
    """Replicas in this process; all of them compute with the same models.

    Args:
        candidates: candidate id -> fitted model.
        slots: batches that a replica computes at once.
        threads: torch threads for each of them.
        most_pairs: largest number of pairs that a model is given at once.
        embed: called in a thread with `candidates`; computes their product vectors, and returns candidate id -> number
            of products whose vectors it uses.
        device: torch device of the models.
    """

    size = 1

    def __init__(
        self,
        candidates: dict[str, Candidate],
        slots: int,
        threads: int,
        most_pairs: int,
        embed: Callable[[dict[str, Candidate]], dict[str, int]] = lambda members: {},
        device: str = "cpu",
    ) -> None:
        self.candidates, self.devices = candidates, [device]
        self._slots, self._threads, self._most_pairs, self._embed = slots, threads, most_pairs, embed

    async def replica(self, ended: Ended, patient: bool = False) -> Replica:
        """Return one more replica in this process; it never ends by itself, and has the priority of the process."""
        return LocalReplica(self.candidates, self._slots, self._threads, self._most_pairs)

    async def embed(self) -> dict[str, int]:
        """Compute product vectors in a thread. See :meth:`Fleet.embed`."""
        return await asyncio.get_running_loop().run_in_executor(None, self._embed, self.candidates)

    def close(self) -> None:
        """Let go of the models."""
        self.candidates = {}


class Fleets:
    """Makes the fleet of each champion according to the settings.

    Args:
        settings: `replicas`, `members_at_once`, `batch_pairs` and `precomputed_products` are used.
        device: where members compute: auto, cpu, cuda or cuda:N.
        vectors: folder in which product vectors are kept.
    """

    def __init__(self, settings: Settings, device: str, vectors: Path) -> None:
        self._settings, self._device, self._vectors = settings, device, vectors
        self._zygote = Zygote()

    def start(self) -> None:
        """Start the process that replicas are forked from, without waiting for it."""
        if self._settings.replicas != 0:
            self._zygote.start()

    def fleet(
        self,
        ensemble: Path,
        products: Path | None,
        data_version: str,
        retrieved: dict[str, int],
        check: Callable[[], object] = lambda: None,
    ) -> Fleet:
        """Make the fleet of a champion; blocks while its members are loaded.

        Args:
            ensemble: folder of the ensemble, a copy of this machine's own because damaged embeddings are repaired.
            products: Arrow file of the catalogue, None for none.
            data_version: version of the catalogue's data.
            retrieved: product id -> how often it was asked for.
            check: called whenever the members are loaded again; raises when their files are not what they were.

        Returns:
            The fleet, ready to make replicas.

        Raises:
            TournamentError: if a member cannot be loaded.
        """
        settings = self._settings
        replicas = usable_cores() if settings.replicas is None else max(settings.replicas, 1)
        slots = settings.members_at_once
        job = Job(
            ensemble,
            self._device,
            slots,
            max(1, usable_cores() // replicas // (slots or 1)),
            settings.batch_pairs,
            products,
            data_version,
            self._vectors,
            settings.precomputed_products,
            retrieved if settings.precomputed_products is not None else {},
        )
        if settings.replicas == 0:
            return _local(job)
        fleet = ProcessFleet(self._zygote, job, settings.replicas, check)
        fleet.start()
        return fleet

    def refresh(self, ensemble: Path, data: Path, target: Path) -> dict[str, int]:
        """Write a copy of an ensemble that knows newer data; see `compute.embeddings.refreshed_copy`. Blocks.

        Args:
            ensemble: folder of the ensemble.
            data: folder of the loaded data set.
            target: an empty folder that the copy is written into.

        Returns:
            Candidate id -> number of products computed anew.

        Raises:
            TournamentError: if that fails.
        """
        if self._settings.replicas != 0:
            return self._zygote.refresh(ensemble, data, target, self._device)
        from esci_tournament.deployments.scorer.compute.embeddings import refreshed_copy
        from esci_tournament.tasks.candidates.device import resolve_device

        return refreshed_copy(ensemble, data, target, str(resolve_device(self._device)))

    def close(self) -> None:
        """End the process that replicas are forked from."""
        self._zygote.close()


def _local(job: Job) -> LocalFleet:
    from esci_tournament.deployments.scorer.compute.embeddings import make_whole
    from esci_tournament.deployments.scorer.compute.keeper import embed_members
    from esci_tournament.tasks.candidates.device import resolve_device

    device = str(resolve_device(job.device))
    make_whole(job.ensemble, device)
    members = load_members(job, job.folders, device)
    cores = usable_cores()
    slots = job.slots or (cores if device == "cpu" else len(members))
    return LocalFleet(members, slots, max(1, cores // slots), job.most_pairs, partial(embed_members, job), device)
