"""What goes wrong in the crash test: processes that end, a database and a registry that do not answer, a full disk."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.harness import say
from esci_tournament.deployments.stack import supervise

VICTIMS = ("prefect", "mlflow", "worker", "watcher", "flow run", "flow run", "database")
TERM_SHARE = 0.25  # of the kills; the others are by signal 9
DISK_MIB = 768


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@dataclass
class Database:
    """A PostgreSQL cluster of our own, or, where its programs are missing, SQLite, which has no process to kill."""

    url: str | None = None
    folder: Path = Path()
    programs: Path = Path()
    port: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def start(cls) -> Database:
        """Make and start a cluster on loopback."""
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        elsewhere = shutil.which("initdb")
        if not found and elsewhere is None:
            say("no PostgreSQL programs: the ledger is on SQLite, and no database is killed")
            return cls()
        place = Path(tempfile.mkdtemp(prefix="lifecycle-postgres-"))
        made = cls("", place, found[-1] if found else Path(str(elsewhere)).parent, free_port())
        if os.getuid() == 0:
            shutil.chown(place, "nobody", "nogroup")
        made._run("initdb", "-D", f"{place}/data", "-A", "trust", "-U", "tournament", "--no-sync")
        made.begin()
        made.url = f"postgresql+psycopg://tournament@127.0.0.1:{made.port}/postgres"
        return made

    def begin(self) -> None:
        """Start the cluster; after a kill it recovers by itself."""
        options = f"-c listen_addresses=127.0.0.1 -p {self.port} -c unix_socket_directories={self.folder}"
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-o", options, "-l", f"{self.folder}/log", "-w", "start")

    def kill(self, seconds: float = 0.0) -> bool:
        """Kill the server and all that it has forked; a thread starts it again after some seconds.

        Returns:
            False where there is none, or while it is being started.
        """
        if self.url is None or not self._lock.acquire(blocking=False):
            return False
        try:
            self._kill()
        except BaseException:
            self._lock.release()
            raise
        threading.Thread(target=self._begin_again, args=(seconds,), daemon=True, name="database").start()
        return True

    def _begin_again(self, seconds: float) -> None:
        try:
            time.sleep(seconds)
            self.begin()
        finally:
            self._lock.release()

    def _kill(self) -> None:
        pid = int((self.folder / "data" / "postmaster.pid").read_text().splitlines()[0])
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        for process in family:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(family, timeout=10)

    def stop(self) -> None:
        """End the cluster and remove it."""
        if self.url is not None:
            self._lock.acquire(timeout=60)  # an outage under way starts it again first
            self._run("pg_ctl", "-D", f"{self.folder}/data", "-m", "immediate", "-w", "stop")
            shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *words: str) -> None:
        prefix = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.getuid() == 0 else []
        command = [*prefix, str(self.programs / program), *words]
        subprocess.run(command, check=True, cwd=self.folder, stdout=subprocess.DEVNULL, timeout=120)


@dataclass
class Disk:
    """A disk of its own for the home, where the system lets us mount one, so that it can be filled."""

    place: Path
    is_mounted: bool = False

    @classmethod
    def mount(cls, place: Path) -> Disk:
        """Return a small file system in memory, or a plain folder, which is never filled."""
        place.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(place)]
        done = shutil.which("mount") is not None and subprocess.run(words, capture_output=True).returncode == 0
        if not done:
            say("no disk can be mounted here: none is filled")
        return cls(place, done)

    def fill(self, seconds: float) -> bool:
        """Leave no room for a while; False where there is no disk of our own."""
        if not self.is_mounted:
            return False
        ballast = self.place / "ballast"
        try:
            with suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(1 << 20))
            time.sleep(seconds)
        finally:
            ballast.unlink(missing_ok=True)
        return True

    def unmount(self) -> None:
        """Give the memory back."""
        if self.is_mounted:
            subprocess.run(["umount", "-l", str(self.place)], check=False)


@dataclass
class Outages:
    """Stores that do not answer for some seconds, one at a time, while everything else goes on."""

    stack: supervise.Supervisor
    database: Database
    disk: Disk
    home: Path

    def begin(self, chance: random.Random) -> str:
        """Begin an outage in a thread of its own, and return what it is, "" for none."""
        seconds = chance.uniform(2.0, 6.0)
        kinds: dict[str, Callable[[float], object]] = {"the registry hangs": self._hang}
        kinds["the ledger's database is down" if self.database.url else "the ledger is locked"] = self._hold
        if self.disk.is_mounted:
            kinds["the disk is full"] = self.disk.fill
        kind = chance.choice(sorted(kinds))
        threading.Thread(target=kinds[kind], args=(seconds,), daemon=True, name=kind).start()
        return kind

    def _hang(self, seconds: float) -> None:
        leaders = leaders_of(self.stack, "mlflow")
        with suppress(psutil.Error, ProcessLookupError):
            os.killpg(leaders[0], signal.SIGSTOP) if leaders else None
            time.sleep(seconds)
            os.killpg(leaders[0], signal.SIGCONT) if leaders else None

    def _hold(self, seconds: float) -> None:
        if self.database.url is not None:
            self.database.kill(seconds)
            return
        with suppress(sqlite3.Error), closing(sqlite3.connect(self.home / "ledger.db", timeout=1)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            time.sleep(seconds)
            connection.rollback()


def leaders_of(stack: supervise.Supervisor, service: str) -> list[int]:
    """Return the process ids of a service's process groups that run."""
    return [one.process.pid for one in stack._watched if one.service.name == service and one.process is not None]


def kill(stack: supervise.Supervisor, database: Database, chance: random.Random, rather: str = "") -> str:
    """End one of the processes that run, and return what it was and by which signal; "" when there was none.

    Args:
        stack: The stack.
        database: The ledger's database.
        chance: Draws the process and the signal.
        rather: What is ended if it runs; "" for whatever comes.
    """
    number = signal.SIGTERM if chance.random() < TERM_SHARE else signal.SIGKILL
    for what in [rather] * bool(rather) + chance.sample(VICTIMS, len(VICTIMS)):
        if what == "database":
            if database.kill():
                return "database, signal 9"
        elif _end(what, stack, number, chance):
            return f"{what}, {'SIGTERM' if number == signal.SIGTERM else 'signal 9'}"
    return ""


def _end(what: str, stack: supervise.Supervisor, number: signal.Signals, chance: random.Random) -> bool:
    leaders = leaders_of(stack, "worker" if what == "flow run" else what)
    try:
        if leaders and what == "flow run":  # the worker's children: flow runs, and the models that they fit
            family = psutil.Process(leaders[0]).children(recursive=True)
            family = [one for one in family if "esci_tournament.deployments.worker" not in one.cmdline()]
            if family:
                chance.choice(family).send_signal(number)
            return bool(family)
        if leaders:
            os.killpg(leaders[0], number)
    except (psutil.Error, ProcessLookupError):
        return False
    return bool(leaders)
