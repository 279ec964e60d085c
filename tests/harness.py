"""Helpers that start commands and servers, and the one Prefect server that the commands of a test session share.

A command always runs in its own process. `fresh` starts it as a user does, and imports for about ten seconds. `warm`
forks it from a process that has imported everything and has no threads: arguments, environment, folder, output and exit
code are the same; so are its candidates' workers (tests/workers.py). Tests of start-up, of imports and of process trees
use `fresh`.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
from filelock import FileLock

from esci_tournament.deployments.stack.access import CLIENT_AUTH, SERVER_AUTH, authorization
from esci_tournament.deployments.stack.services import services_of
from esci_tournament.registry.settings import Settings, read_settings
from tests.workers import ForkedWorker, leave

# What commands import as they go, and what that imports when it is first used.
PRELOADED = (
    "esci_tournament.deployments.local",
    "esci_tournament.deployments.pyfunc_model",
    "esci_tournament.flows.reevaluate",
    "esci_tournament.flows.refresh",
    "esci_tournament.flows.review",
    "esci_tournament.flows.tournament",
    "esci_tournament.tasks.report.figures",
    "esci_tournament.tasks.report.page",
    "great_expectations",
    "mlflow.pyfunc",
    "prefect.server.api.server",
    "tests.harness",
)
PYTHON = "python"  # in place of a command: the script that follows is run
HOLDING = {"run", "reevaluate", "refresh", PYTHON}  # commands that run a flow of ours
TRAINING = {"run", "reevaluate", PYTHON}  # commands whose flows start candidates' workers
COMMANDS_AUTH = "tests:of-commands"  # of the session's Prefect server for commands; each would make its own
COMMAND = (sys.executable, "-m", "esci_tournament.deployments.cli")
QUIET_PREFECT = {
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
}
OURS = ("TOURNAMENT_", "MLFLOW_", "PREFECT_")


def clean_environment(**more: object) -> dict[str, str]:
    """Return the environment of a user who has set nothing but `more`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return kept | {name: str(value) for name, value in more.items()}


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def until(condition: Callable[[], Any], seconds: float, what: str, logs: Path | None = None) -> Any:
    """Return the condition's answer as soon as it is true; a server that does not answer yet counts as false.

    Args:
        condition: asked ten times a second.
        seconds: how long to wait before the test fails.
        what: what is waited for, in words.
        logs: a folder whose `*.log` files are shown when it does not come.
    """
    end = time.monotonic() + seconds
    while True:
        with suppress(httpx.HTTPError):
            if answer := condition():
                return answer
        if time.monotonic() > end:
            found = sorted(logs.glob("*.log")) if logs else []
            ends = "\n".join(f"{log.name}: {log.read_text(errors='replace')[-3000:]}" for log in found)
            raise AssertionError(f"{what}: not within {seconds:g} s\n{ends}")
        time.sleep(0.1)


def answers(address: str, auth: str = "") -> Callable[[], bool]:
    """Return a condition: the address answers a GET, with `name:password` if it is given, with 200."""
    headers = authorization(auth) if auth else {}
    return lambda: httpx.get(address, timeout=2, headers=headers).status_code == 200


# Commands


@dataclass(frozen=True)
class Answer:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


def fresh(arguments: Sequence[object], cwd: Path, environment: Mapping[str, str], timeout: float = 300) -> Answer:
    """Run a command in a fresh process, as a user does."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def warm(arguments: Sequence[object], cwd: Path, environment: Mapping[str, str], timeout: float = 300) -> Answer:
    """Run a command in a process forked after the imports; flows run on Prefect's embedded server of the session.

    `PYTHON` and the path of a script run that script in place of a command.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        child = start_warm(arguments, cwd, environment, out, err)
        child.join(timeout)
        if child.exitcode is None:
            child.kill()
            child.join()
            raise AssertionError(f"{arguments} ran for more than {timeout:g} s:\n{err.read_text(errors='replace')}")
        return Answer(child.exitcode, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))


def start_warm(
    arguments: Sequence[object], cwd: Path, environment: Mapping[str, str], out: Path, err: Path
) -> multiprocessing.process.BaseProcess:
    """Start a command in a process forked after the imports; what it prints goes into two files."""
    prefect = (
        0 if "PREFECT_API_URL" in environment or HOLDING.isdisjoint(map(str, arguments[:2])) else shared_prefect_port()
    )
    workers = "" if TRAINING.isdisjoint(map(str, arguments[:2])) else shared_workers()
    given = [str(one) for one in arguments], str(cwd), dict(environment), prefect, workers, str(out), str(err)
    for file in (out, err):
        file.touch()
    child = _forks().Process(target=_command, args=given)
    with _environment_of_imports():  # the first start also starts the process that forks
        child.start()
    return child


@functools.cache
def _forks() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


@contextmanager
def _environment_of_imports() -> Iterator[None]:
    """Have modules that read the environment while they are imported find what a command sets before it imports."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as nothing:
        wanted = clean_environment(PREFECT_HOME=nothing, **QUIET_PREFECT)
        os.environ.clear()
        os.environ.update(wanted)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def _command(
    arguments: list[str], cwd: str, environment: dict[str, str], prefect: int, workers: str, out: str, err: str
) -> None:  # pragma: no cover - it runs in another process
    """Be the command: what `python -m esci_tournament.deployments.cli` does after its imports, and the way it ends."""
    for number, file in ((0, os.devnull), (1, out), (2, err)):
        descriptor = os.open(file, os.O_RDWR)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w", buffering=1), open(2, "w", buffering=1)  # noqa: SIM115
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = ["tournament", *arguments]

    from prefect.context import refresh_global_settings_context
    from prefect.server.api.server import SubprocessASGIServer

    from esci_tournament.deployments import local
    from esci_tournament.deployments.cli import main

    quiet = local.quiet_prefect

    def quiet_prefect(settings: Settings) -> None:
        quiet(settings)
        refresh_global_settings_context()  # Prefect is there already, and reads the environment when it is imported

    local.quiet_prefect = quiet_prefect
    if environment.get("PREFECT_API_URL"):
        refresh_global_settings_context()
    if prefect:  # its temporary server has been started, as far as Prefect can tell
        server = SubprocessASGIServer()
        server.port, server.running, server.server_process = prefect, True, _Started()  # type: ignore[assignment]
        os.environ[CLIENT_AUTH] = COMMANDS_AUTH
    if workers:
        from esci_tournament.tasks.candidates import supervise

        supervise.start_child = functools.partial(ForkedWorker, workers)  # type: ignore[assignment]
    code: Any = 1
    try:
        if arguments[0] == PYTHON:
            runpy.run_path(arguments[1], run_name="__main__")
            code = 0
        else:
            code = main(arguments)
    except SystemExit as end:
        code = end.code
    finally:
        leave(code if isinstance(code, int) else 1 if code else 0)


@dataclass(frozen=True)
class _Started:
    """The process of a server that somebody else ends."""

    pid: int = -1

    def terminate(self) -> None: ...

    def wait(self, timeout: float | None = None) -> int:
        return 0


# Servers


class Programs:
    """Programs that a test starts, each the leader of a process group, and ends again.

    Args:
        folder: where they run, and where what they print goes to, a log for each name.
        environment: all their variables.
        owner: process with which they end, however it ends; default: this one.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], owner: int | None = None) -> None:
        self.folder, self.environment, self.owner = folder, dict(environment), owner or os.getpid()
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: Sequence[object], ready: Callable[[], Any], seconds: float = 120) -> None:
        """Start a program under a name and wait until it is ready."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [*map(str, command)],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        _end_with(self.owner, self.running[name].pid)
        until(ready, seconds, f"{name} is ready", self.folder)

    def end(self, name: str, how: signal.Signals = signal.SIGKILL) -> int | None:
        """End a program and all that it started, by default as a power failure would; return its exit status."""
        process = self.running.pop(name, None)
        if process is None:
            return None
        with suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        try:
            return process.wait(timeout=30)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def end_all(self) -> None:
        for name in reversed(list(self.running)):
            self.end(name)

    def log(self, name: str) -> str:
        """Return what a program has printed."""
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")


class PrefectServer(Programs):
    """A real Prefect server as `tournament up` starts it, which may be ended and started again on its database.

    Args:
        folder: where it runs and keeps its files.
        settings: settings that programs which work for it find in their environment.

    Attributes:
        api: address of its API.
        auth: `name:password` of it, the home's.
        client: variables that make Prefect's client of another process speak to it.
    """

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.settings = read_settings(**{"home": folder, **settings, "prefect_port": free_port()})
        with patch.dict(os.environ):  # a command that ran in this process may have left its server's password there
            for name in (SERVER_AUTH, CLIENT_AUTH):
                os.environ.pop(name, None)
            self.service = next(one for one in services_of(self.settings) if one.name == "prefect")
        self.home = folder / "prefect"
        variables = {**self.service.environment, "PREFECT_HOME": str(self.home)}
        super().__init__(folder, clean_environment(**variables))
        self.port = self.settings.prefect_port
        self.api, self.auth = variables["PREFECT_API_URL"], variables[CLIENT_AUTH]
        self.client = {"PREFECT_API_URL": self.api, CLIENT_AUTH: self.auth}

    def connected(self) -> AbstractContextManager[object]:
        """Make Prefect's client of this process speak to it inside a `with` block."""
        from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

        return temporary_settings({PREFECT_API_URL: self.api, PREFECT_API_AUTH_STRING: self.auth})

    def start_server(self) -> None:
        self.start("server", self.service.command, lambda: self.service.health(0.0))


_session: Path | None = None  # the folder that all processes of a test session share


def share(folder: Path) -> None:
    """Say in which folder the processes of this session find each other."""
    global _session
    _session = folder


@functools.cache
def shared_prefect_port() -> int:
    """Return the port of the session's Prefect server for commands, started by whichever process needs it first.

    It stands in for the temporary server that Prefect starts for each command without a configured one. It ends with
    the session, kill -9 included.
    """
    assert _session is not None
    place = _session / "prefect-of-commands"
    with FileLock(f"{place}.lock"):
        if not (place / "port").is_file():
            place.mkdir(exist_ok=True)
            server = PrefectServer(place)
            server.environment |= {SERVER_AUTH: COMMANDS_AUTH, CLIENT_AUTH: COMMANDS_AUTH}
            server.owner = _session_pid()
            server.start_server()
            (place / "port").write_text(str(server.port), encoding="utf-8")
        return int((place / "port").read_text(encoding="utf-8"))


@functools.cache
def shared_workers() -> str:
    """Return the address of the session's process that forks candidates' workers, started by whoever needs it first."""
    assert _session is not None
    place = _session / "workers"
    address = place / "address"
    with FileLock(f"{place}.lock"):
        if not address.exists():
            place.mkdir(exist_ok=True)
            one_thread = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # as those of a tournament have
            as_supervised = {
                "TOKENIZERS_PARALLELISM": "false",
                "TRANSFORMERS_VERBOSITY": "error",
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                "PYTHONHASHSEED": "0",
            }
            programs = Programs(place, clean_environment(**one_thread, **as_supervised), _session_pid())
            here = str(Path(__file__).resolve().parents[1])
            programs.environment["PYTHONPATH"] = here
            programs.start("workers", [sys.executable, "-P", "-m", "tests.workers", address], address.exists)
        return str(address)


@functools.cache
def shared_mlflow() -> Path:
    """Return the session's empty MLflow database, made by whichever process needs it first. Read only."""
    from esci_tournament.registry.models import Models

    assert _session is not None
    made = _session / "mlflow.db"
    with FileLock(f"{made}.lock"):
        if not made.is_file():
            home = _session / "mlflow"
            home.mkdir(exist_ok=True)
            assert Models(f"sqlite:///{home / 'mlflow.db'}", home).champion() is None
            (home / "mlflow.db").replace(made)
    return made


def new_home(home: Path) -> Path:
    """Make a home whose MLflow database is there, as after a first command, which would take seconds to migrate it."""
    home.mkdir()
    shutil.copy(shared_mlflow(), home / "mlflow.db")
    return home


def _session_pid() -> int:
    """Return the process that lives as long as the session: pytest-xdist's controller, or this one."""
    return os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()


def _end_with(process: int, group: int) -> None:
    """Have a process group ended within a second of a process that ends, however it ends."""
    loop = 'while kill -0 "$1" && kill -0 "-$2"; do sleep 1; done; kill -9 "-$2"'
    subprocess.Popen(
        ["/bin/sh", "-c", loop, "watch", str(process), str(group)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
