"""Run a command and end its whole process group when whoever started this one is gone, kill -9 included.

A program of its own, `python leash.py COMMAND...`: its standard input is a pipe whose other end the supervisor holds
and never writes to, so the end of that file is the end of the supervisor. Imports nothing that is not in the standard
library, so that it starts at once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

GRACE_S = 10.0


def main(command: Sequence[str]) -> None:
    """Run `command` in this process's group, which this process must lead, until it or the supervisor ends."""
    # The group's signals are for the command; a handler, unlike SIG_IGN, is not handed on to it.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_until_alone, daemon=True).start()
    code = child.wait()
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} ended by {how}: {' '.join(command[1:4])}\n")
    sys.stderr.flush()
    os.killpg(
        0, signal.SIGKILL
    )  # what the command has left behind would keep its port, and this process has no more to do


def _until_alone() -> None:
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGTERM)
    time.sleep(GRACE_S)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
