"""The locks that keep tournaments apart: one of the home, one of the device for all machines that share a ledger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from prefect import runtime

from esci_tournament.registry.locks import tournament_lock
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.workspace import Workspace

SERVED_PATIENCE_S = 7 * 86_400.0  # a dispatched run waits for one that was started by hand
PATIENCE_S = 10.0  # asking whether the lock is held takes it for a moment


def device_lock(settings: Settings) -> str:
    """Return the name of the ledger's lock under which tournaments on this device are held."""
    return f"tournament on device {settings.device}"


def run_sign(flow_run: object) -> str:
    """Return the name under which a flow run's process shows in the ledger that it lives, also while it waits."""
    return f"flow run {flow_run}"


@contextmanager
def turn(workspace: Workspace, doing: str = "a tournament") -> Iterator[None]:
    """Hold both locks while the block runs; a process that is killed loses them.

    A run of a deployment waits up to a week for each lock, and shows meanwhile that it lives. Others do not wait for
    the home's, and ten seconds for the device's, because asking whether a lock is held takes it for a moment.

    Args:
        workspace: The home and the ledger that have the locks.
        doing: What the holder does, for the message that a second process gets.

    Yields:
        Nothing; the locks are held until the block ends.

    Raises:
        BusyError: If another process holds one.
    """
    served = runtime.deployment.id
    patience = SERVED_PATIENCE_S if served else 0.0
    with (
        workspace.ledger.working_on(run_sign(runtime.flow_run.id)) if served else nullcontext(),
        tournament_lock(workspace.settings.home, doing, patience),
        workspace.ledger.keep(device_lock(workspace.settings), patience or PATIENCE_S),
    ):
        yield
