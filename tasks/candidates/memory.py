"""Measure the memory of a process and its descendants, and end a process that holds too much."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

GIB = 2**30
_POLL_SECONDS = 0.1


def resident_bytes(process: int | None = None) -> int:
    """Return the resident memory of a process and all its descendants.

    Args:
        process: Process id; default: this process.

    Returns:
        Bytes; pages that processes share are counted once for each of them. 0 for a process that is gone.
    """
    root = os.getpid() if process is None else process
    if Path("/proc/self/statm").is_file():
        return sum(map(_resident_of, _family(root)))
    listed = subprocess.run(["ps", "-axo", "pid=,ppid=,rss="], capture_output=True, text=True, check=False).stdout
    rows = [tuple(map(int, line.split())) for line in listed.splitlines()]
    family = {root}
    while grown := {pid for pid, parent, _ in rows if parent in family} - family:
        family |= grown
    return 1024 * sum(kib for pid, _, kib in rows if pid in family)


def peak_resident_bytes() -> int:
    """Return the highest resident memory that this process has ever had, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


@contextmanager
def memory_watch(process: int, limit_bytes: float | None, end: Callable[[], None]) -> Iterator[threading.Event]:
    """Call a function as soon as a process and its descendants hold too much memory; it is looked at every 0.1 s.

    Args:
        process: Process id.
        limit_bytes: Resident bytes that they may hold; None for no limit.
        end: Called without arguments, at most once, from another thread.

    Yields:
        An event that is set just before `end` is called.
    """
    over, exceeded = threading.Event(), threading.Event()

    def watch() -> None:
        while not over.wait(_POLL_SECONDS):
            if limit_bytes is not None and resident_bytes(process) > limit_bytes:
                exceeded.set()
                end()
                return

    thread = threading.Thread(target=watch, daemon=True, name="memory-watch")
    if limit_bytes is not None:
        thread.start()
    try:
        yield exceeded
    finally:
        over.set()
        if limit_bytes is not None:
            thread.join()


def _family(root: int) -> list[int]:
    found, waiting = list[int](), [root]
    while waiting:
        process = waiting.pop()
        found.append(process)
        for children in Path(f"/proc/{process}/task").glob("*/children"):
            try:
                waiting += map(int, children.read_text(encoding="ascii").split())
            except OSError:  # the process ended meanwhile
                continue
    return found


def _resident_of(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0
