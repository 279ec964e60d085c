"""What runs for a home: a lock that dies with the supervisor, and a file that says what it started."""

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

SAME_START_S = 2.0  # start times are derived from the clock at boot, which is corrected now and then


@dataclass(frozen=True)
class Process:
    """A process by number and start time (seconds since 1970), so that a reused number is not taken for it."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> Process:
        return cls(pid, psutil.Process(pid).create_time())

    def is_alive(self) -> bool:
        """Tell whether exactly this process runs."""
        try:
            found = psutil.Process(self.pid)
            same = abs(found.create_time() - self.started) < SAME_START_S
            return same and found.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


@dataclass(frozen=True)
class State:
    """What a supervisor has started.

    Attributes:
        supervisor: the process that watches over the services.
        services: name -> the process that leads the service's group.
        addresses: name -> where it is reached, for people.
        api: address of Prefect's API.
        tracking_uri: MLflow as the services see it, without a password.
        data: what registered candidates compete on, "" when nobody has said.
        healthy: whether all of them have answered.
    """

    supervisor: Process
    services: dict[str, Process] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    api: str = ""
    tracking_uri: str = ""
    data: str = ""
    healthy: bool = False


def stack_folder(home: Path) -> Path:
    """Return the folder of the stack's own files, made if missing; StoreError when the home cannot be written."""
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
    """Be the one supervisor of a home while the block runs; the lock is the kernel's and ends with the process.

    Raises:
        BusyError: if there is one already.
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
    """Write what runs, in one rename."""
    write_atomically(home / "stack" / "state.json", json.dumps(asdict(state), indent=1).encode())


def read_state(home: Path) -> State | None:
    """Return what was started last, whether it runs still or not; None when nothing was or it ended in order."""
    try:
        said = json.loads((home / "stack" / "state.json").read_text(encoding="utf-8"))
        services = {name: Process(**words) for name, words in said.pop("services").items()}
        return State(supervisor=Process(**said.pop("supervisor")), services=services, **said)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remove_state(home: Path) -> None:
    """Forget what ran: it has ended."""
    with suppress(FileNotFoundError):
        (home / "stack" / "state.json").unlink()


def running(home: Path) -> State | None:
    """Return what runs for a home, or None when no supervisor does."""
    state = read_state(home)
    return state if state is not None and state.supervisor.is_alive() else None


def prefect_api_url(home: Path) -> str | None:
    """Return the address of the Prefect API that `tournament up` runs for a home, None when it does not run."""
    state = running(home)
    return state.api if state is not None else None
