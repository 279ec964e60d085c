"""Tournaments are held one after the other: a lock for the home, one for the device among all machines of a ledger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prefect import runtime

from esci_tournament.registry.locks import tournament_lock
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.workspace import Workspace

SERVED_PATIENCE_S = 7 * 86_400.0  # a run that was dispatched waits for one that somebody holds by hand
PATIENCE_S = 10.0  # whoever asks whether the lock is held, holds it for a moment


def device_lock(settings: Settings) -> str:
    """Return the name of the ledger's lock under which tournaments on this device are held."""
    return f"tournament on device {settings.device}"


@contextmanager
def turn(workspace: Workspace, doing: str = "a tournament") -> Iterator[None]:
    """Hold both locks while the block runs; a process that is killed loses them.

    Raises:
        BusyError: if another process holds one; a run of a deployment waits for it instead.
    """
    patience = SERVED_PATIENCE_S if runtime.deployment.id else 0.0
    with (
        tournament_lock(workspace.settings.home, doing, patience),
        workspace.ledger.keep(device_lock(workspace.settings), patience or PATIENCE_S),
    ):
        yield
