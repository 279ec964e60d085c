"""Compute and store how far a tournament and each of its candidates is, from the shares that they report."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from esci_tournament.registry.files import write_atomically

# Weights of all stages but training, of 100 in all; training has the rest, in equal parts per entrant.
WEIGHTS = {
    "load": 3.0, "validate": 3.0, "split": 1.0, "enter": 1.0, "attach weights": 2.0, "profile": 6.0,
    "build the challenger": 8.0, "judge": 3.0, "report": 3.0,
}  # fmt: skip
WAITS, STORED = "waits", "scores are in the store"  # what an entrant does that has not begun, or need not be trained


@dataclass(frozen=True)
class Told:
    """What a run has told last.

    Attributes:
        share: Share of the whole tournament that is done, in [0, 1].
        doing: What it does.
        candidates: Candidate id -> share of its training and scoring that is done, in [0, 1], and what it does; {}
            before the candidates have entered.
    """

    share: float
    doing: str
    candidates: dict[str, tuple[float, str]] = field(default_factory=dict)


def is_candidate(name: str) -> bool:
    """Return whether what reports a share is a candidate, by its id `name/version`, and not a stage."""
    return "/" in name


def overall(shares: Mapping[str, float], stored: Collection[str] = ()) -> float:
    """Return the share of a whole tournament that is done, in [0, 1].

    Args:
        shares: Name of a stage or id of an entrant -> share of it that is done, in [0, 1]; every entrant is in it from
            the start.
        stored: Entrants that need no training, which therefore say nothing about how long the others take.

    Returns:
        The mean of the stages weighted by :data:`WEIGHTS`; training has the rest of 100, in equal parts per entrant.

    Example:
        >>> overall({"load": 1.0, "validate": 1.0, "minilm/1": 0.5, "gatv2/1": 0.0})
        0.235
        >>> overall({"load": 1.0, "validate": 1.0, "minilm/1": 0.0, "gatv2/1": 1.0}, stored=["gatv2/1"])
        0.06
    """
    done = sum(weight * shares.get(name, 0.0) for name, weight in WEIGHTS.items())
    entrants = {name: share for name, share in shares.items() if is_candidate(name)}
    training = [share for name, share in entrants.items() if name not in stored] or list(entrants.values())
    left = 100.0 - sum(WEIGHTS.values())
    return min(1.0, (done + (left * sum(training) / len(training) if training else 0.0)) / 100.0)


def write_progress(folder: Path, flow_run: str, told: Told) -> None:
    """Write how far a flow run is, for :func:`read_progress` on the same machine.

    Args:
        folder: Gets `<flow_run>.json`.
        flow_run: Id of the flow run.
        told: How far it is.
    """
    content = {"share": told.share, "doing": told.doing, "candidates": told.candidates}
    write_atomically(folder / f"{flow_run}.json", json.dumps(content).encode())


def read_progress(folder: Path, flow_run: str) -> Told | None:
    """Return what a flow run wrote last.

    Args:
        folder: The folder that it writes to.
        flow_run: Id of the flow run.

    Returns:
        How far it is; None when it ended, or runs on another machine.
    """
    try:
        said = json.loads((folder / f"{flow_run}.json").read_text(encoding="utf-8"))
        each = {str(name): (float(share), str(doing)) for name, (share, doing) in said.get("candidates", {}).items()}
        return Told(float(said["share"]), str(said["doing"]), each)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def running(folder: Path) -> dict[str, Told]:
    """Return what every run that has not ended wrote last: flow run -> how far it is, the one that wrote last first.

    A run that was killed leaves what it wrote last, until the next one begins.
    """
    try:
        files = sorted(folder.glob("*.json"), key=lambda file: -file.stat().st_mtime)
    except OSError:  # one has ended just now
        return running(folder)
    found = {file.stem: read_progress(folder, file.stem) for file in files}
    return {flow_run: told for flow_run, told in found.items() if told is not None}


def forget_progress(folder: Path, flow_run: str) -> None:
    """Remove what a flow run wrote, once it has ended."""
    (folder / f"{flow_run}.json").unlink(missing_ok=True)
