"""The process in which :func:`esci_tournament.registry.border.in_child` runs a function of ours.

`python -m esci_tournament.registry.border_child REQUEST ANSWER MEMORY WRITES FILES SECONDS [USER GROUP]`: descriptors
of the request (a JSON file) and of the pipe for the answer, limits in MiB, MiB, a number and seconds, who to become.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import sys
from contextlib import suppress
from typing import Any

from esci_tournament.registry.children import end_with_parent

_MIB = 2**20
_NEWNET = 0x40000000  # CLONE_NEWNET
_NO_NEW_PRIVILEGES = 38  # PR_SET_NO_NEW_PRIVS
_channel: list[int] = []


def say(message: Any) -> None:
    """Tell the parent something while the function runs, such as progress; nothing where there is no parent.

    Args:
        message: JSON-able.
    """
    if _channel:
        _write({"said": message})


def confine(memory_mib: int, writes_mib: int, files: int, seconds: int) -> None:
    """Set limits on this process and on what it starts.

    Args:
        memory_mib: Private memory, MiB.
        writes_mib: Size of a file that is written, MiB.
        files: Open files.
        seconds: Processor time of one core, s; twice as much is given.
    """
    limits = {
        "RLIMIT_CORE": 0,
        "RLIMIT_CPU": 2 * seconds,
        "RLIMIT_DATA": memory_mib * _MIB,
        "RLIMIT_AS": max(8 * memory_mib, 4096) * _MIB,
        "RLIMIT_FSIZE": writes_mib * _MIB,
        "RLIMIT_NOFILE": files,
    }
    for name, value in limits.items():
        with suppress(OSError, ValueError, AttributeError):  # what this system has not
            resource.setrlimit(getattr(resource, name), (value, value))
    no_new_privileges()
    with suppress(OSError, AttributeError):
        if os.geteuid() == 0:
            ctypes.CDLL(None).unshare(_NEWNET)  # no network, where that is allowed


def no_new_privileges() -> None:
    """Let no program that this process starts be another user's, as `sudo` is; nothing where there is no such call."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)


def become(user: int, group: int) -> None:
    """Make this process that of another user, for good.

    Args:
        user: Number of the user.
        group: Number of the group.
    """
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)


def main(
    request: int, answer: int, memory_mib: int, writes_mib: int, files: int, seconds: int, *user_and_group: int
) -> int:
    """Run the function that the request names and write its answer.

    Args:
        request: Descriptor of the request.
        answer: Descriptor of the pipe for the answer.
        memory_mib: As :func:`confine`.
        writes_mib: As :func:`confine`.
        files: As :func:`confine`.
        seconds: As :func:`confine`.
        user_and_group: As :func:`become`; none to stay who it is.

    Returns:
        The exit status.
    """
    end_with_parent()
    with os.fdopen(request, "rb") as file:
        asked = json.load(file)
    module, _, name = asked["function"].partition(":")
    function = getattr(importlib.import_module(module), name)  # our own code, before the limits
    _channel.append(answer)
    os.set_inheritable(answer, False)
    confine(memory_mib, writes_mib, files, seconds)
    if user_and_group:
        become(*user_and_group)
    try:
        _write({"answer": function(**asked["arguments"])})
    except BaseException as error:  # a panic of an extension is no Exception
        own = type(error).__module__ == "esci_tournament.registry.errors"
        _write({"failed": type(error).__name__, "own": own, "message": str(error)[:2000]})
        return 1
    return 0


def _write(message: dict[str, Any]) -> None:
    line = json.dumps(message, default=_as_json, allow_nan=True).encode() + b"\n"
    while line:
        line = line[os.write(_channel[0], line) :]


def _as_json(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy
        return value.tolist()
    return str(value)


if __name__ == "__main__":
    sys.stdout.flush()
    sys.modules["esci_tournament.registry.border_child"] = sys.modules["__main__"]  # so that `say` is this one
    code = main(*map(int, sys.argv[1:]))
    sys.stdout.flush()
    os._exit(code)  # no clean-up code of libraries, which a damaged state could hang or crash
