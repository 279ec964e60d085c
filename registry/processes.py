"""How a module of ours is started as a process of its own, and the cores and memory that this process may use."""

from __future__ import annotations

import getpass
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

import esci_tournament

# The folder that holds the package, as it was found: in an editable install a folder of links, not where they lead.
_PLACE = str(Path(esci_tournament.__path__[0]).absolute().parent)

# Threads of GNU's OpenMP look 300,000 times whether the others are ready before they sleep. On a machine that does
# other things, too, they take the core from the very thread that they wait for, and training takes several times as
# long. Fewer looks cost an idle machine nothing that could be measured (a page of 40, steps of a small network).
_LOOKS = {"GOMP_SPINCOUNT": "10000"}
_OF_THE_USER = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")

_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def python_module(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module with this Python.

    Without -P the current folder comes first in the search: a user's own `mlflow.py` or `prefect` there would be taken
    for the library.

    Args:
        module: Dotted name of the module.
        arguments: Its command line.

    Returns:
        The command, for :class:`subprocess.Popen`.

    Example:
        >>> python_module("mlflow", "server")[1:]
        ['-P', '-m', 'mlflow', 'server']
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def patient_threads() -> dict[str, str]:
    """Return variables with which threads that wait leave the cores to others; {} where the user has said how to wait.

    They count for a process that has not loaded OpenMP yet.
    """
    return {} if any(name in os.environ for name in _OF_THE_USER) else dict(_LOOKS)


def usable_cores() -> int:
    """Return the number of cores that this process may use, which a container may have limited."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_memory() -> int:
    """Return the bytes of memory that this process may use: the machine's, or what its container was given."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [physical]
    for file in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # there is no such file, or it says "max"
            limits.append(int(file.read_text()))
    return min(limit for limit in limits if limit > 0)


def module_path() -> dict[str, str]:
    """Return the environment variables that let a process, and what it starts, find our package, installed or not.

    As -P does for one process, PYTHONSAFEPATH keeps the current folder out of the search of all of them.

    Returns:
        `PYTHONPATH` (what it is in this process, after our own folder) and `PYTHONSAFEPATH`.
    """
    known = os.environ.get("PYTHONPATH", "")
    return {"PYTHONPATH": os.pathsep.join([_PLACE, *filter(None, [known])]), "PYTHONSAFEPATH": "1"}


def process_user() -> str:
    """Return the name of the user that this process runs as, its number where it has no name.

    The system is asked, and not the environment: LOGNAME and USER say whatever the caller wrote into them.
    """
    try:
        import pwd
    except ImportError:  # Windows
        return getpass.getuser()
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # as in some containers
        return str(os.getuid())


def user_and_host() -> str:
    """Return `user@host` of this process."""
    return f"{process_user()}@{socket.gethostname()}"
