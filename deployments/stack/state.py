"""What runs for a home: a lock that ends with the supervisor's process, and a file that says what it started."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from esci_tournament.registry.errors import BusyError, StoreError
from esci_tournament.registry.files import write_atomically

SAME_START_S = 2.0  # start times are derived from the boot clock, which is sometimes corrected


@dataclass(frozen=True)
class Process:
    """A process by id and start time, so that another process under a reused id is not mistaken for it.

    Attributes:
        pid: process id.
        started: start time, seconds since 1970.
        since_boot: start time, ticks since the machine was booted, which no correction of the clock changes; 0 where
            the system does not tell it.
    """

    pid: int
    started: float
    since_boot: int = 0

    @classmethod
    def of(cls, pid: int) -> Process:
        """Return the process that has this id now.

        Raises:
            psutil.NoSuchProcess: if there is none.
        """
        return cls(pid, psutil.Process(pid).create_time(), _ticks(pid))

    def is_alive(self) -> bool:
        """Tell whether this very process runs; a zombie does not."""
        try:
            found = psutil.Process(self.pid)
            if self.since_boot:
                same = _ticks(self.pid) == self.since_boot
            else:
                same = abs(found.create_time() - self.started) < SAME_START_S
            return same and found.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


@dataclass(frozen=True)
class State:
    """What a supervisor has started.

    Attributes:
        supervisor: the process that supervises the services.
        services: service name -> the process that leads its process group.
        addresses: service name -> URL for people.
        api: URL of Prefect's API.
        tracking_uri: tracking URI of MLflow that the services use, without a password.
        data: setting `data`: what registered candidates compete on, "" when it is not set.
        healthy: whether every service has answered.
    """

    supervisor: Process
    services: dict[str, Process] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    api: str = ""
    tracking_uri: str = ""
    data: str = ""
    healthy: bool = False


def _ticks(pid: int) -> int:
    """Return when a process started, in ticks since the boot as Linux has it; 0 where that cannot be read."""
    try:
        said = Path(f"/proc/{pid}/stat").read_bytes()
        return int(said.rpartition(b")")[2].split()[19])  # behind the name, which may hold anything
    except (OSError, ValueError, IndexError):
        return 0


def stack_folder(home: Path) -> Path:
    """Return the folder `stack` of a home, which holds the stack's own files; it is made if missing.

    Raises:
        StoreError: if the home cannot be written.
    """
    folder = home / "stack"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink(missing_ok=True)  # another thread of this process may have been quicker
    except OSError as error:
        raise StoreError(
            f"home {home} cannot be written: {error.strerror or error}; choose another folder with --home"
        ) from error
    return folder


@contextmanager
def supervising(home: Path) -> Iterator[None]:
    """Hold the supervisor's lock of a home while the block runs; the kernel releases it when the process ends.

    Args:
        home: folder of all state.

    Yields:
        Nothing; the lock is held.

    Raises:
        BusyError: if another supervisor holds it.
        StoreError: if the home cannot be written.
    """
    lock = FileLock(stack_folder(home) / "supervisor.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BusyError(f"the stack of {home} runs already; end it with: tournament down --home {home}") from None
    try:
        yield
    finally:
        lock.release()


def write_state(home: Path, state: State) -> None:
    """Write `stack/state.json` below the home, in one rename."""
    write_atomically(home / "stack" / "state.json", json.dumps(asdict(state), indent=1).encode())


def read_state(home: Path) -> State | None:
    """Return what was started last, whether it still runs or not.

    Returns:
        The state; None when nothing was started, when it was stopped in order, or when the file cannot be read.
    """
    try:
        said = json.loads((home / "stack" / "state.json").read_text(encoding="utf-8"))
        services = {name: Process(**words) for name, words in said.pop("services").items()}
        return State(supervisor=Process(**said.pop("supervisor")), services=services, **said)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remove_state(home: Path) -> None:
    """Remove the state file, because the stack has ended; one that stays names processes that do not run any more."""
    with suppress(OSError):
        (home / "stack" / "state.json").unlink()


def running(home: Path) -> State | None:
    """Return the state of a home's stack, or None when no supervisor runs."""
    state = read_state(home)
    return state if state is not None and state.supervisor.is_alive() else None


def prefect_api_url(home: Path) -> str | None:
    """Return the URL of the Prefect API that `tournament up` runs for a home, or None when it does not run."""
    state = running(home)
    return state.api if state is not None else None
