"""How often a flow run says that it is alive, and after how much silence it counts as dead: both, in one place.

The process of a flow run sends heartbeats as its own environment says, wherever it was started; the automation that
waits for them is in the server. When the two disagreed, every run longer than the silence was marked as crashed.
"""

from __future__ import annotations

FREQUENCY = "PREFECT_FLOWS_HEARTBEAT_FREQUENCY"  # Prefect's variable; a process without it sends one every 180 s
HEARTBEAT_S = 30  # Prefect's least; set wherever we start a flow run, or say how one is started
# Without a heartbeat for this long, a run is marked as crashed. It is more than three of Prefect's own intervals, so
# that a process which was started past us, by a release before this one or by a program of a user's, is not taken for
# dead, nor all of them while the server is being restarted. The watcher notices a dead tournament sooner by its lock.
SILENCE_S = 600


def heartbeat_environment() -> dict[str, str]:
    """Return the variable that has a flow run send heartbeats as often as the server's automation wants them.

    Example:
        >>> heartbeat_environment()
        {'PREFECT_FLOWS_HEARTBEAT_FREQUENCY': '30'}
    """
    return {FREQUENCY: str(HEARTBEAT_S)}
