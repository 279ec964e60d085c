"""What the driver says of a card, and work in a process that no other work has touched the card in."""

from __future__ import annotations

import multiprocessing
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

MIB = 2**20


def used_mib() -> float:
    """Return the memory of the first card that is in use by all processes together, MiB; nan without a card."""
    return _query("memory.used")


def total_mib() -> float:
    """Return the memory of the first card, MiB; nan without a card."""
    return _query("memory.total")


def driver() -> str:
    """Return the version of the driver, "" without one."""
    return _said("driver_version")


def _query(what: str) -> float:
    try:
        return float(_said(what))
    except ValueError:
        return float("nan")


def _said(what: str) -> str:
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits", "--id=0"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def settled_mib(most: float, patience_s: float = 10.0) -> tuple[float, float]:
    """Wait until the card has at most `most` MiB in use.

    Args:
        most: MiB.
        patience_s: seconds that are waited at most.

    Returns:
        MiB in use, and the seconds waited.
    """
    began = time.monotonic()
    while (used := used_mib()) > most and time.monotonic() - began < patience_s:
        time.sleep(0.05)
    return used, time.monotonic() - began


def apart(work: Callable[[], Any]) -> Any:
    """Run a function in a fresh process, with a CUDA context of its own, and return what it returns.

    Args:
        work: can be pickled, and so can its result.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work).result()
