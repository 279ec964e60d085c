"""Candidates' worker processes that begin after their imports, which take eight seconds of a core.

One process of the test session has imported what workers import, has no threads, and forks each worker that a warm
command asks for. Job, arguments, environment, output, exit code and the pipe whose end ends it are as in a fresh one.
Commands that are not warm start fresh workers.

    python -m tests.workers ADDRESS     the process that forks
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NoReturn

PRELOADED = (
    "esci_tournament.tasks.candidates.steps",
    "esci_tournament.tasks.candidates.worker",
    "esci_tournament.tasks.data.plans",
    "esci_tournament.tasks.data.store",
    "esci_tournament.tasks.families.graph_network.model",
    "esci_tournament.tasks.families.language_model.model",
    "esci_tournament.tasks.families.score_file.model",
    "transformers.models.auto",
    "transformers.models.bert.modeling_bert",
)


class ForkedWorker:
    """What the supervisor needs of :class:`subprocess.Popen`, for a process that is not our child.

    Args:
        address: Unix socket of the process that forks.
        command: The worker's; its last argument is the job.
        stdout: `subprocess.PIPE`.
        stderr: File for what it prints to standard error.
        env: All its variables.
    """

    def __init__(
        self, address: str, command: Sequence[str], *, stdout: int, stderr: BinaryIO, env: Mapping[str, str]
    ) -> None:
        assert stdout == subprocess.PIPE
        start = Path(command[-1]).with_suffix(".start")
        start.write_text(json.dumps({"job": command[-1], "environment": dict(env), "cwd": os.getcwd()}))
        waits_on, ours = os.pipe()
        said, says = os.pipe()
        self.stdout = os.fdopen(said, "rb")
        weakref.finalize(self, os.close, ours).atexit = False  # at the end of this process the kernel closes it
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.connect(address)
        socket.send_fds(self.connection, [os.fsencode(start)], [waits_on, says, stderr.fileno()])
        for descriptor in (waits_on, says):
            os.close(descriptor)
        self.answers = self.connection.makefile("r")
        self.pid = int(self.answers.readline())
        self.returncode: int | None = None
        self.lock = threading.Lock()

    def poll(self) -> int | None:
        with self.lock:
            if self.returncode is None and select.select([self.connection], [], [], 0)[0]:
                self.returncode = int(self.answers.readline())
                self.connection.close()
        return self.returncode

    def wait(self) -> int:
        while self.poll() is None:
            select.select([self.connection], [], [], 1.0)
        return int(self.returncode or 0)

    def kill(self) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def serve(address: str) -> None:
    """Fork a worker for each connection, which brings its standard streams and hears of its id and its exit code."""
    for module in PRELOADED:
        importlib.import_module(module)
    assert threading.active_count() == 1
    sys.path[:] = [place for place in sys.path if place != os.environ.get("PYTHONPATH")]  # a worker would not have it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait for the workers
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{address}.soon")
        listening.listen(64)
        os.rename(f"{address}.soon", address)
        while True:
            connection, _ = listening.accept()
            start, streams, _, _ = socket.recv_fds(connection, 4096, 3)
            if os.fork() == 0:
                listening.close()
                _wait_for_a_worker(connection, start, streams)
            connection.close()
            for stream in streams:
                os.close(stream)


def _wait_for_a_worker(connection: socket.socket, start: bytes, streams: Sequence[int]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    worker = os.fork()
    if worker == 0:
        connection.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        _be_a_worker(Path(os.fsdecode(start)))
    for stream in streams:
        os.close(stream)
    with suppress(OSError):  # who asked for it is gone, and the worker ends
        connection.sendall(f"{worker}\n".encode())
    code = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
    with suppress(OSError):
        connection.sendall(f"{code}\n".encode())
    os._exit(0)


def _be_a_worker(start: Path) -> None:
    import numpy as np

    from esci_tournament.tasks.candidates import worker

    code = 1
    try:
        told = json.loads(start.read_text())
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w", buffering=1), open(2, "w", buffering=1)  # noqa: SIM115
        os.chdir(told["cwd"])
        os.environ.clear()
        os.environ.update(told["environment"])
        sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
        sys.argv = [worker.__file__, told["job"]]
        random.seed()
        np.random.seed()
        code = worker.main(told["job"])
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        leave(code)


def leave(code: int) -> NoReturn:
    """End a forked process as an interpreter that ends does, but without what its parent would do at its end."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
