"""Describe the machine that a figure was measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from esci_tournament.registry.processes import usable_cores


def describe_machine(device: str) -> dict[str, Any]:
    """Return the facts of this machine, as the summary has them.

    Args:
        device: Torch device that the tournament ran on.

    Returns:
        `device`, `cpu` (model name), `cores` that this process may use, `memory_gib` in GiB, `platform`, and `python`
        (version).
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "device": device,
        "cpu": _processor(),
        "cores": usable_cores(),
        "memory_gib": round(memory, 1),
        "platform": platform.platform(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
