"""Keep the secrets of this process from others of the same user: they may read its environment and its memory.

Linux shows each process's environment, as it was when it started, in /proc/PID/environ: also after a variable was
removed. Code of others that runs below us, such as a pyfunc, would find passwords there.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

# Variables that stay readable: no secret, and libraries may have kept where they stand.
_PLAIN = {
    *("HOME", "HOSTNAME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "PWD", "SHELL", "SHLVL", "TERM", "TMPDIR", "TZ"),
    "USER",
}
_PLAIN_BEGIN = (
    *("CUDA_", "GLIBC_", "GOMP_", "KMP_", "LC_", "LD_", "MALLOC_", "MKL_", "NVIDIA_", "OMP_", "OPENBLAS_"),
    "PYTHON",
)
_SET_DUMPABLE = 4  # PR_SET_DUMPABLE
_ENV_START, _ENV_END = 47, 48  # fields 50 and 51 of /proc/PID/stat, counted from the third


def hide_environment() -> None:
    """Blank the values of this process's variables in /proc/PID/environ; the process itself keeps all of them.

    Does nothing on a system without /proc.
    """
    with suppress(OSError, ValueError, IndexError, AttributeError):
        facts = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        start, end = int(facts[_ENV_START]), int(facts[_ENV_END])
        if not 0 < start < end:
            return
        # libc then points to copies of its own, and nothing of ours to what is blanked.
        for name, value in os.environ.items():
            os.putenv(name, value)
        place = start
        for entry in ctypes.string_at(start, end - start).split(b"\0"):
            known, sign, content = entry.partition(b"=")
            if sign and not _plain(known.decode(errors="replace")):
                ctypes.memset(place + len(known) + 1, 0, len(content))
            place += len(entry) + 1


def hide_process() -> None:
    """Blank the environment, and let no other process of the user read this one's memory or descriptors.

    Nor can it be traced, and it leaves no core dump. Root may still do all of it. Does nothing where there is no /proc.
    """
    hide_environment()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_SET_DUMPABLE, 0, 0, 0, 0)


def _plain(name: str) -> bool:
    return name in _PLAIN or name.startswith(_PLAIN_BEGIN)
