"""Compute and store how far a tournament is, from the shares that its stages report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from esci_tournament.registry.files import write_atomically

# Weights of all stages but training, of 100 in all; training has the rest, in equal parts per entrant.
WEIGHTS = {
    "load": 3.0, "validate": 3.0, "split": 1.0, "enter": 1.0, "attach weights": 2.0, "profile": 6.0,
    "build the challenger": 8.0, "judge": 3.0, "report": 3.0,
}  # fmt: skip
AFTER = ("register the challenger", "promote")  # reported, and too short to count


def overall(shares: Mapping[str, float]) -> float:
    """Return the share of a whole tournament that is done, in [0, 1].

    Args:
        shares: Name of a stage or of an entrant -> share of it that is done, in [0, 1]; every entrant is in it from the
            start.

    Returns:
        The mean of the stages weighted by :data:`WEIGHTS`; training has the rest of 100, in equal parts per entrant.

    Example:
        >>> overall({"load": 1.0, "validate": 1.0, "minilm/1": 0.5, "gatv2/1": 0.0})
        0.235
    """
    done = sum(weight * shares.get(name, 0.0) for name, weight in WEIGHTS.items())
    training = [share for name, share in shares.items() if name not in WEIGHTS and name not in AFTER]
    left = 100.0 - sum(WEIGHTS.values())
    return min(1.0, (done + (left * sum(training) / len(training) if training else 0.0)) / 100.0)


def write_progress(folder: Path, flow_run: str, share: float, doing: str) -> None:
    """Write how far a flow run is, for :func:`read_progress` on the same machine.

    Args:
        folder: Gets `<flow_run>.json`.
        flow_run: Id of the flow run.
        share: Share that is done, in [0, 1].
        doing: What it does.
    """
    content = json.dumps({"share": share, "doing": doing})
    write_atomically(folder / f"{flow_run}.json", content.encode())


def read_progress(folder: Path, flow_run: str) -> tuple[float, str] | None:
    """Return what a flow run wrote last.

    Args:
        folder: The folder that it writes to.
        flow_run: Id of the flow run.

    Returns:
        The share that is done, in [0, 1], and what it does; None when it ended, or runs on another machine.
    """
    try:
        said = json.loads((folder / f"{flow_run}.json").read_text(encoding="utf-8"))
        return float(said["share"]), str(said["doing"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def forget_progress(folder: Path, flow_run: str) -> None:
    """Remove what a flow run wrote, once it has ended."""
    (folder / f"{flow_run}.json").unlink(missing_ok=True)
