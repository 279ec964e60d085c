"""How far a tournament is, from the shares that its stages report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from esci_tournament.registry.files import write_atomically

# What everything but training weighs in the whole; training gets the rest, in equal parts for all who enter.
WEIGHTS = {
    "load": 3.0, "validate": 3.0, "split": 1.0, "enter": 1.0, "attach weights": 2.0, "profile": 6.0,
    "build the challenger": 8.0, "judge": 3.0, "report": 3.0,
}  # fmt: skip
AFTER = ("register the challenger", "promote")  # reported, and too short to count


def overall(shares: Mapping[str, float]) -> float:
    """Return the share of a whole tournament that is done, in [0, 1].

    Args:
        shares: name of a stage or of an entrant -> share of it that is done; who enters is there from the start.
    """
    done = sum(weight * shares.get(name, 0.0) for name, weight in WEIGHTS.items())
    training = [share for name, share in shares.items() if name not in WEIGHTS and name not in AFTER]
    left = 100.0 - sum(WEIGHTS.values())
    return min(1.0, (done + (left * sum(training) / len(training) if training else 0.0)) / 100.0)


def write_progress(folder: Path, flow_run: str, share: float, doing: str) -> None:
    """Write how far a flow run is: the share that is done, in [0, 1], and what it does."""
    content = json.dumps({"share": share, "doing": doing})
    write_atomically(folder / f"{flow_run}.json", content.encode())


def read_progress(folder: Path, flow_run: str) -> tuple[float, str] | None:
    """Return what a flow run wrote last, or None when it ended, or runs on another machine."""
    try:
        said = json.loads((folder / f"{flow_run}.json").read_text(encoding="utf-8"))
        return float(said["share"]), str(said["doing"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def forget_progress(folder: Path, flow_run: str) -> None:
    """Remove what a flow run wrote: it has ended."""
    (folder / f"{flow_run}.json").unlink(missing_ok=True)
