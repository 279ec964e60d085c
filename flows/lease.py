"""GPU slots, leased from Prefect's global concurrency limit `gpu`; Prefect frees the slots of a killed holder."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from prefect.concurrency.sync import concurrency
from prefect.settings import PREFECT_API_URL

from esci_tournament.registry.settings import Settings
from esci_tournament.tasks.candidates.device import resolve_device

LIMIT = "gpu"


def gpu(settings: Settings, slots: int = 1) -> AbstractContextManager[Any]:
    """Return a context manager in which GPU slots are held; entering it waits until they are free.

    Nothing is leased on a CPU or without a configured Prefect API, unless the setting `lease` says so. A limit that
    does not exist is an error (`strict`): without the limit, several runs would share one GPU.

    Args:
        settings: `lease`, `lease_s` and `device`.
        slots: How many slots.

    Returns:
        The context manager; one that does nothing where nothing is leased.
    """
    wanted = settings.lease == "always"
    if settings.lease == "auto":
        wanted = bool(PREFECT_API_URL.value()) and resolve_device(settings.device).type == "cuda"
    if not wanted:
        return nullcontext()
    return concurrency(
        LIMIT,
        occupy=slots,
        strict=True,
        lease_duration=settings.lease_s,
        # A server that is being restarted does not end hours of training; only who is dead loses its slots.
        raise_on_lease_renewal_failure=False,
    )
