"""Open what others wrote in a child process that holds no secret, and refuse what ends or outlasts that process.

A parser of foreign bytes may crash, loop or take all memory, in code that no `except` reaches. Here a function of ours
runs in a process of its own, with no variable of the environment but a few, limits on time, memory and what it writes,
and the group of its processes killed at the end. What it returns is JSON of bounded length. Where this process is root
and everything needed is readable to others, the child is the user `nobody` and has no network.

    in_child("esci_tournament.tasks.ensemble.model_text:shape_of", {"path": "..."}, doing="read the aggregator X")
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from esci_tournament.registry import errors
from esci_tournament.registry.children import OUTSIDE, start_child
from esci_tournament.registry.errors import CandidateError, TournamentError
from esci_tournament.registry.foreign import read_json
from esci_tournament.registry.processes import module_path, python_module

MIB = 2**20
# Variables that the child gets from ours; none of them holds a password or an address.
HANDED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SYSTEMROOT")
_QUIET = {
    "HOME": "/nonexistent",
    "HF_HUB_OFFLINE": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}
_LINE = 1_000  # characters of a message from the child that are passed on
_TAIL = 4_000  # bytes of what it printed that are kept


@dataclass(frozen=True)
class Limits:
    """What a child may use.

    Attributes:
        seconds: Wall time from its start to its answer.
        memory_mib: Private memory, MiB; its virtual addresses have eight times as much, and 4 GiB at least.
        writes_mib: Size of a file that it writes, MiB; 0 for none.
        answer_bytes: Length of its answer and of all that it says, as JSON in UTF-8.
        files: Open files and sockets.
    """

    seconds: float = 60.0
    memory_mib: int = 2048
    writes_mib: int = 0
    answer_bytes: int = MIB
    files: int = 256


def in_child(
    function: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    doing: str,
    seconds: float = 60.0,
    memory_mib: int = 2048,
    writes_mib: int = 0,
    answer_bytes: int = MIB,
    refusal: type[TournamentError] = CandidateError,
    reads: Iterable[Path | str] | None = None,
    hear: Callable[[Any], None] | None = None,
) -> Any:
    """Run a function of ours in a child process that opens foreign bytes, and return what it returns.

    A bare child takes 0.1 s; what the function's module imports comes on top.

    Args:
        function: "module:name", such as "esci_tournament.tasks.x:function".
        arguments: Its keyword arguments, JSON-able; paths as text.
        doing: What is opened, for messages: "read the archive X".
        seconds: Wall time that it may take.
        memory_mib: Private memory that it may hold, MiB.
        writes_mib: Size of a file that it may write, MiB; 0 for none, in which case it may be another user's process.
        answer_bytes: Length that its answer may have, as JSON in UTF-8.
        refusal: Class of the error for a crash, a limit that was met, or an exception that is not ours.
        reads: Files and folders that it opens; default: every argument that is an absolute path.
        hear: Called with each value that the function passes to :func:`esci_tournament.registry.border_child.say`.

    Returns:
        What the function returned, through JSON.

    Raises:
        TournamentError: One of our own errors that the function raised, of the same class and with the same message;
            otherwise `refusal`, which says what was being opened and why it was refused.
    """
    given = dict(arguments or {})
    if reads is None:
        reads = [value for value in given.values() if isinstance(value, str) and os.path.isabs(value)]
    limits = Limits(seconds, memory_mib, writes_mib, answer_bytes)
    paths = [Path(one) for one in reads]
    return _Child(function, given, doing, limits, refusal, hear).run(None if writes_mib else other_user(paths))


def scrubbed(**more: str) -> dict[str, str]:
    """Return an environment without secrets, in which Python finds our package.

    Args:
        more: Variables that are added.

    Returns:
        Name of the variable -> value.
    """
    kept = {name: os.environ[name] for name in HANDED_ON if name in os.environ}
    return kept | module_path() | _QUIET | more


def other_user(reads: Iterable[Path] = ()) -> tuple[int, int] | None:
    """Return the user and group `nobody`, if this process may become it, and it may read Python, our code and `reads`.

    Args:
        reads: Files and folders that have to be readable.

    Returns:
        Numbers of the user and the group, or None.
    """
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return None
    import pwd

    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        return None
    needed = [Path(sys.executable), *(Path(one) for one in sys.path if one and os.path.exists(one))]
    needed += [Path(one) for one in module_path()["PYTHONPATH"].split(os.pathsep) if os.path.exists(one)]
    needed.append(Path(__file__))
    return (nobody.pw_uid, nobody.pw_gid) if all(map(_open_to_all, [*needed, *reads])) else None


def _open_to_all(path: Path) -> bool:
    """Tell whether a path can be read by every user, by the modes of it, of what it leads to and of all folders."""
    try:
        for place in {path.absolute(), path.resolve()}:
            mode = place.stat().st_mode
            wanted = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(mode) else 0)
            if mode & wanted != wanted:
                return False
            if not all(above.stat().st_mode & stat.S_IXOTH for above in place.parents):
                return False
    except OSError:
        return False
    return True


class _Child:
    """One run of :func:`in_child`."""

    def __init__(
        self,
        function: str,
        arguments: dict[str, Any],
        doing: str,
        limits: Limits,
        refusal: type[TournamentError],
        hear: Callable[[Any], None] | None,
    ) -> None:
        self.function, self.arguments, self.doing, self.limits = function, arguments, doing, limits
        self.refusal, self.hear = refusal, hear
        self.printed = b""
        self.answer: dict[str, Any] = {}
        self.has_said = False

    def run(self, user: tuple[int, int] | None) -> Any:
        """Start it, listen until its end or its deadline, and return its answer."""
        trouble, code = self._run_once(user)
        if not (trouble or self.answer or self.has_said) and -code in OUTSIDE:
            # The kernel, short of memory, or an operator may have chosen it
            self.printed = b""
            trouble, code = self._run_once(user)
        if "answer" in self.answer:
            return self.answer["answer"]
        if "failed" in self.answer:
            raise self._failure()
        raise self.refused(trouble or _death(code, self.printed))

    def _run_once(self, user: tuple[int, int] | None) -> tuple[str, int]:
        """Return why it was ended by this process, or "", and its exit code."""
        answers, its = os.pipe()
        try:
            with tempfile.TemporaryFile() as request:
                request.write(json.dumps({"function": self.function, "arguments": self.arguments}).encode())
                request.flush()
                request.seek(0)
                process = self._start(request, its, user)
        except BaseException:
            os.close(answers)
            raise
        finally:
            os.close(its)
        try:
            trouble = self._listen(process, answers)
        finally:
            end_group(process)
            os.close(answers)
            assert process.stdout is not None
            process.stdout.close()
        return trouble, process.returncode

    def refused(self, why: str) -> TournamentError:
        """Return the error for a refusal."""
        return self.refusal(f"cannot {self.doing}: {why}; it was refused")

    def _start(self, request: IO[bytes], its: int, user: tuple[int, int] | None) -> subprocess.Popen[bytes]:
        limits = self.limits
        numbers = [request.fileno(), its, limits.memory_mib, limits.writes_mib, limits.files, int(limits.seconds) + 1]
        return start_child(
            python_module("esci_tournament.registry.border_child", *map(str, [*numbers, *(user or ())])),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=scrubbed(),
            cwd="/",
            pass_fds=(request.fileno(), its),
            start_new_session=True,
        )

    def _listen(self, process: subprocess.Popen[bytes], answers: int) -> str:
        """Take in what the child says until it is over; return why it was ended, or ""."""
        assert process.stdout is not None
        deadline, heard, total = time.monotonic() + self.limits.seconds, b"", 0
        with selectors.DefaultSelector() as selector:
            selector.register(answers, selectors.EVENT_READ)
            selector.register(process.stdout, selectors.EVENT_READ)
            while answers in selector.get_map():
                ready = selector.select(max(deadline - time.monotonic(), 0))
                if time.monotonic() >= deadline:
                    return f"it took longer than {self.limits.seconds:g} s"
                for key, _ in ready:
                    chunk = os.read(key.fd, 65_536)
                    if not chunk:
                        selector.unregister(key.fileobj)
                    elif key.fd != answers:
                        self.printed = (self.printed + chunk)[-_TAIL:]
                    else:
                        total += len(chunk)
                        if total > self.limits.answer_bytes + 1024:
                            return f"its answer is longer than {self.limits.answer_bytes:,} bytes"
                        *lines, heard = (heard + chunk).split(b"\n")
                        if not all(map(self._hear, lines)):
                            return "its answer cannot be read"
                if self.answer:
                    return ""
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=max(deadline - time.monotonic(), 0))
        return "" if process.returncode is not None else f"it took longer than {self.limits.seconds:g} s"

    def _hear(self, line: bytes) -> bool:
        try:
            message = read_json(line.decode(), self.limits.answer_bytes + 1024)
        except ValueError:
            return False
        if not isinstance(message, dict):
            return False
        if "said" in message:
            self.has_said = True
            if self.hear is not None:
                self.hear(message["said"])
        else:
            self.answer = self.answer or message
        return True

    def _failure(self) -> TournamentError:
        name, message = str(self.answer["failed"]), plain(str(self.answer.get("message", "")))
        own = getattr(errors, name, None)
        if self.answer.get("own") is True and isinstance(own, type) and issubclass(own, TournamentError):
            return own(message)
        if name == "MemoryError" or "bad_alloc" in message:
            return self.refused(f"it takes more than {self.limits.memory_mib:,} MiB of memory")
        return self.refused(f"{name[:100]}: {message}" if message else name[:100])


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that leads a group, and all of the group, and wait for its end.

    Args:
        process: The leader, started with `start_new_session`.
    """
    for started in _descendants(process.pid):  # one that has left the group
        with suppress(ProcessLookupError, PermissionError):
            os.kill(started, signal.SIGKILL)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _descendants(root: int) -> list[int]:
    found, waiting = list[int](), [root]
    while waiting:
        one = waiting.pop()
        for listed in Path(f"/proc/{one}/task").glob("*/children"):
            with suppress(OSError, ValueError):
                waiting += (started := [int(pid) for pid in listed.read_text(encoding="ascii").split()])
                found += started
    return found


def plain(text: str) -> str:
    """Return a message of others as one line of at most 1,000 printable characters.

    Args:
        text: The message.

    Example:
        >>> plain("one " + chr(27) + "[31m two")
        'one  [31m two'
    """
    return "".join(letter if letter.isprintable() else " " for letter in " ".join(text.split()))[:_LINE]


def _death(code: int, printed: bytes) -> str:
    words = [line for line in map(plain, printed.decode(errors="replace").splitlines()) if line.strip()]
    said = f" ({words[-1][:200]})" if words else ""
    if any("bad_alloc" in line or "MemoryError" in line for line in words):
        return f"its process ran out of memory{said}"
    if code < 0:
        with suppress(ValueError):
            return f"it ends the process that opens it, by {signal.Signals(-code).name}{said}"
    return f"it ends the process that opens it, with exit code {code}{said}"
