"""How a module of ours is started as a process of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_ROOT = str(Path(__file__).resolve().parents[1])


def python_module(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of ours with this Python.

    Without -P the current folder comes first in the search: a user's own folder `tasks` or `flows` there would be taken
    for ours.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def module_path() -> dict[str, str]:
    """Return the variables that let a process, and what it starts, find our packages, installed or not, and no others.

    As -P does for one process, PYTHONSAFEPATH keeps the current folder out of the search of all of them.
    """
    known = os.environ.get("PYTHONPATH", "")
    return {"PYTHONPATH": os.pathsep.join([_ROOT, *filter(None, [known])]), "PYTHONSAFEPATH": "1"}
