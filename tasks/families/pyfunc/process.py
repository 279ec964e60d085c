"""Run a model in a process of its own, with a limit on its memory and on the time of each answer."""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from esci_tournament.registry.border import other_user, plain, scrubbed
from esci_tournament.registry.errors import CandidateError
from esci_tournament.registry.foreign import read_json
from esci_tournament.registry.processes import python_module
from esci_tournament.registry.secrecy import hide_process
from esci_tournament.tasks.candidates.memory import GIB, memory_watch, resident_bytes
from esci_tournament.tasks.data.store import write_frame

_MESSAGE = 65_536  # bytes of a line that the process may say, and lines that may wait
_WAITING = 16
_NONSENSE = {"failed": "its process does not keep to the protocol"}
_ANSWER = 256 * 2**20  # bytes of an answer


@dataclass(frozen=True)
class ProcessLimits:
    """What a process may use.

    Attributes:
        memory_gib: resident and data memory, GiB.
        seconds: time that an answer may take; opening the model has the same limit.
    """

    memory_gib: float
    seconds: float


class ModelProcess:
    """A pyfunc in its own process, started at once and started again by the next request after it has ended.

    Args:
        name: of the candidate, for messages.
        folder: of the MLflow model; it must stay as long as the process.
        limits: what it may use.
        classes: order of the classes in answers without names, such as "CEIS"; "" when none is declared.
        columns: columns of the product that a text classifier reads beside the query.

    Attributes:
        end: ends the process and removes its temporary files; it also runs when the object is collected.

    Raises:
        CandidateError: by every call, when the model fails, takes too long or too much memory.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        limits: ProcessLimits,
        classes: str = "",
        columns: Sequence[str] = ("product_title",),
    ) -> None:
        self.name, self.folder, self.limits = name, folder, limits
        self._read = classes, ",".join(columns)
        self._scratch = Path(tempfile.mkdtemp(prefix="pyfunc-"))
        # Where it may write; what we write stands beside it, where it cannot lay a link for us to follow.
        self._its = self._scratch / "its"
        self._its.mkdir()
        self._user = other_user([folder])
        if self._user is not None:
            self._scratch.chmod(0o755)
            os.chown(self._its, *self._user)
        self._running: list[subprocess.Popen[bytes]] = []
        self._said: queue.Queue[bytes | None] = queue.Queue()
        self._lock = threading.Lock()
        self._asked = 0
        self.end = weakref.finalize(self, _clear, self._running, self._scratch)
        with self._lock:
            self._start()

    def ask(self, frame: pd.DataFrame) -> np.ndarray:
        """Return the model's answer for the rows of `frame`; calls from several threads wait for each other.

        Args:
            frame: what the model's `predict` is called with, such as :func:`official_rows` makes.

        Returns:
            float32 (n, 4), columns E, S, C, I; an answer of another shape as the model gave it.

        Raises:
            CandidateError: if the model fails, takes too long or too much memory, or leaves no readable answer.
        """
        with self._lock:
            if not self._running or self._running[0].poll() is not None:
                self._start()
            self._asked += 1
            request = {
                "frame": str(self._scratch / f"frame-{self._asked}"),
                "answer": str(self._its / f"answer-{self._asked}.npy"),
            }
            write_frame(frame, Path(request["frame"]))
            try:
                self._send(request)
                self._listen("an answer")
                return _answer(Path(request["answer"]))
            except (OSError, ValueError) as error:
                raise CandidateError(
                    f"{self.name}: its process left no readable answer ({plain(str(error))})"
                ) from error
            finally:
                for path in request.values():
                    Path(path).unlink(missing_ok=True)

    def resident_bytes(self) -> int:
        """Return the memory that the process holds now, in bytes."""
        return resident_bytes(self._running[0].pid) if self._running else 0

    def _start(self) -> None:
        self._kill()
        self._said = queue.Queue(_WAITING)
        hide_process()  # it might read our environment otherwise
        # No compiled files: in the model's own folder they would make it another model than the one that was saved.
        environment = scrubbed(HOME=str(self._its), TMPDIR=str(self._its))
        threads = os.environ.get("OMP_NUM_THREADS")
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "HF_HUB_OFFLINE"):
            environment.pop(name)
        if threads is not None:
            environment["OMP_NUM_THREADS"] = threads
        as_other: dict[str, Any] = (
            {"user": self._user[0], "group": self._user[1], "extra_groups": []} if self._user else {}
        )
        limit = int(self.limits.memory_gib * GIB)
        process = subprocess.Popen(
            python_module("esci_tournament.tasks.families.pyfunc.worker", str(self.folder), str(limit), *self._read),
            stdin=subprocess.PIPE,  # for requests; it ends when this end is closed (registry.children)
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # so that it can be ended with all that it starts
            cwd=self._its,
            **as_other,
        )
        self._running.append(process)
        threading.Thread(target=_hear, args=(process, self._said), daemon=True, name="pyfunc-hear").start()
        self._listen("the opened model")

    def _send(self, request: dict[str, Any]) -> None:
        pipe = self._running[0].stdin
        assert pipe is not None
        pipe.write(json.dumps(request).encode() + b"\n")
        pipe.flush()

    def _listen(self, what: str) -> None:
        process = self._running[0]
        with memory_watch(process.pid, self.limits.memory_gib * GIB, lambda: _kill(process)) as exceeded:
            try:
                line = self._said.get(timeout=self.limits.seconds)
            except queue.Empty:
                self._kill()
                raise CandidateError(
                    f"{self.name}: {what} did not come within {self.limits.seconds:g} s (setting pyfunc_timeout_s); "
                    "its process was ended"
                ) from None
        message = _message(line) if line else {}
        if exceeded.is_set():
            problem = f"took more than {self.limits.memory_gib:g} GiB of memory (setting pyfunc_memory_gib)"
            message = {"failed": f"it {problem}; its process was ended"}
        elif not line:
            message = {"failed": f"its process ended with code {process.wait()} before {what} came"}
        if "failed" in message:
            if not line or exceeded.is_set() or message is _NONSENSE:
                self._kill()
            raise CandidateError(f"{self.name}: {plain(str(message['failed']))}")

    def _kill(self) -> None:
        while self._running:
            _kill(self._running.pop())


def _message(line: bytes) -> dict[str, Any]:
    """Return what a line says; one that says nothing is a failure."""
    try:
        message = read_json(line.decode(), _MESSAGE)
    except ValueError:
        message = None
    return message if isinstance(message, dict) else _NONSENSE


def _answer(path: Path) -> np.ndarray:
    """Return the array in a file that the process wrote, no larger than the file itself; a link is not followed."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > _ANSWER:
            raise ValueError(f"no file of at most {_ANSWER:,} bytes")
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("another version of the format")
        shape, fortran, kind = np.lib.format.read_array_header_1_0(file)
        size = math.prod(shape)
        if kind != np.float32 or fortran or file.tell() + size * kind.itemsize != facts.st_size:
            raise ValueError(f"an array {shape} of {kind} in {facts.st_size} bytes")
        return np.frombuffer(file.read(), dtype=np.float32).reshape(shape)


def _hear(process: subprocess.Popen[bytes], said: queue.Queue[bytes | None]) -> None:
    assert process.stdout is not None
    try:
        while line := process.stdout.readline(_MESSAGE):
            said.put_nowait(line)
        said.put_nowait(None)
    except queue.Full:  # it says more than it was asked
        _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _clear(running: list[subprocess.Popen[bytes]], scratch: Path) -> None:
    while running:
        process = running.pop()
        _kill(process)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
    shutil.rmtree(scratch, ignore_errors=True)
