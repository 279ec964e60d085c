"""The lock that keeps a home to one tournament at a time; the operating system frees it when its holder is killed."""

from __future__ import annotations

import datetime as dt
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from esci_tournament.registry.errors import BusyError
from esci_tournament.registry.files import disk_in_words, make_home, write_atomically

_held: set[Path] = set()  # homes whose lock this process holds


@contextmanager
def tournament_lock(home: Path, doing: str = "a tournament", seconds: float = 0.0) -> Iterator[None]:
    """Hold the tournament lock of `home` while the block runs.

    The lock is the kernel's (flock), so it ends with its process, also by SIGKILL. A process that holds it may take it
    again.

    Args:
        home: The folder that may have one tournament at a time; made if missing.
        doing: What the holder does, for the message that a second process gets.
        seconds: How long to wait for another process that holds it; 0 is not at all.

    Yields:
        Nothing; the lock is held until the block ends.

    Raises:
        BusyError: If another process holds it; the message names its process id.
        StoreError: If the disk is full, or the home cannot be written.
    """
    if home.resolve() in _held:
        yield
        return
    with disk_in_words("tournament lock", home):
        make_home(home)
    # Two files, because taking the lock truncates the file it is taken on.
    lock, holder = FileLock(home / "tournament.lock"), home / "tournament.holder.json"
    try:
        lock.acquire(timeout=seconds, poll_interval=0.2)
    except Timeout:
        raise BusyError(_complaint(home, holder)) from None
    try:
        words = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "doing": doing,
            "since": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        }
        with disk_in_words("tournament lock", home):
            write_atomically(holder, json.dumps(words).encode())
        _held.add(home.resolve())
        yield
    finally:
        _held.discard(home.resolve())
        holder.unlink(missing_ok=True)
        lock.release()


def _complaint(home: Path, holder: Path) -> str:
    try:
        said = json.loads(holder.read_text(encoding="utf-8"))
        who = f"process {said['pid']} on {said['host']} ({said['doing']}, since {said['since']})"
    except (OSError, ValueError, KeyError, TypeError):  # the holder has not written its name yet
        who = "another process"
    return f"{home} is in use by {who}; wait until it ends, or give this one a home of its own"
