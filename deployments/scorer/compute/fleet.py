"""Where the replicas of a champion come from: this process, or processes of their own (`forked`)."""

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
    """Where a champion's replicas come from.

    Attributes:
        size: replicas that it should have. devices: that they compute on.
    """

    size: int
    devices: list[str]

    async def replica(self, ended: Ended, patient: bool = False) -> Replica:
        """Return one more replica, ready to compute.

        Args:
            ended: called when it is gone without having been told to end. patient: it gives way to everything else.

        Raises:
            TournamentError: if there is none to be had.
        """

    async def embed(self) -> dict[str, int]:
        """Have product vectors computed and used; return member -> products whose vectors it uses."""

    def close(self) -> None:
        """End all of it."""


class LocalFleet:
    """Replicas in this process: all of them compute with the same models.

    Args:
        candidates: candidate id -> fitted model. slots: batches computed at once. threads: of torch, for each of them.
        most_pairs: that a model is given at once. embed: computes product vectors; called in a thread.
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
        return LocalReplica(self.candidates, self._slots, self._threads, self._most_pairs)

    async def embed(self) -> dict[str, int]:
        return await asyncio.get_running_loop().run_in_executor(None, self._embed, self.candidates)

    def close(self) -> None:
        self.candidates = {}


class Fleets:
    """Makes the fleet of each champion, as the settings want it.

    Args:
        settings: `replicas`, `members_at_once`, `batch_pairs`, `precomputed_products`. device: of the members.
        vectors: folder in which product vectors are kept.
    """

    def __init__(self, settings: Settings, device: str, vectors: Path) -> None:
        self._settings, self._device, self._vectors = settings, device, vectors
        self._zygote = Zygote()

    def start(self) -> None:
        """Begin with what takes seconds; nothing is waited for."""
        if self._settings.replicas != 0:
            self._zygote.start()

    def fleet(self, ensemble: Path, products: Path | None, data_version: str, retrieved: dict[str, int]) -> Fleet:
        """Return a fleet whose members are loaded; blocks while they load.

        Args:
            ensemble: folder of this machine's own. products: Arrow file of the catalogue. data_version: of it.
            retrieved: product id -> how often it was.

        Raises:
            TournamentError: if they cannot be loaded.
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
        fleet = ProcessFleet(self._zygote, job, settings.replicas)
        fleet.start()
        return fleet

    def refresh(self, ensemble: Path, data: Path, target: Path) -> dict[str, int]:
        """Write an ensemble with newer data into an empty folder; see `compute.embeddings.refreshed_copy`. Blocks.

        Raises:
            TournamentError: if that fails.
        """
        if self._settings.replicas != 0:
            return self._zygote.refresh(ensemble, data, target, self._device)
        from esci_tournament.deployments.scorer.compute.embeddings import refreshed_copy
        from esci_tournament.tasks.candidates.device import resolve_device

        return refreshed_copy(ensemble, data, target, str(resolve_device(self._device)))

    def close(self) -> None:
        """End the processes."""
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
