"""Start the services in order, wait until each is healthy, restart those that die or hang, and stop them all."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from esci_tournament.deployments.stack.services import Service, api_url, is_loopback, services_of, who_listens
from esci_tournament.deployments.stack.state import Process, State, read_state, remove_state, supervising, write_state
from esci_tournament.registry.addresses import without_password
from esci_tournament.registry.children import start_group
from esci_tournament.registry.errors import BusyError, ServiceError, StoreError
from esci_tournament.registry.files import publish
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.spelling import counted

TICK_S = 0.2
STOP_S = 20.0  # from SIGTERM to SIGKILL: a flow run that is told to end records its state first
LEFTOVER_S = 3.0  # the same for what is left of a killed stack, which has no server to report to
BACKOFF_S = (1.0, 2.0, 5.0, 10.0, 30.0)  # before each restart, the last for all that follow
STEADY_S = 60.0  # after this time without a death the back-off starts from its first pause again
LOOK_S = 15.0  # between two health checks of a service; a third of hang_timeout_s when that is less
WRITE_S = 1.0  # until a state that could not be written is written again
FIRST_TRIES = 2  # a service that dies so often before it was ever healthy cannot run here
LOG_BYTES = 50_000_000

Say = Callable[[str], None]  # called with one message for people


@dataclass
class Watched:
    """A service and the process that runs it now, if one does. Moments are of `time.monotonic`: clocks are corrected.

    Attributes:
        service: what is run.
        log: file that its output is appended to.
        process: the process, None while there is none.
        started: when the process was started.
        healthy: whether the process has answered.
        was_healthy: whether any process of the service ever has.
        deaths: how often it has died or hung since it last ran steadily.
        not_before: earliest moment of its next start.
        looked: when its health was last checked.
        answered: when a check last succeeded.
    """

    service: Service
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    healthy: bool = False
    was_healthy: bool = False
    deaths: int = 0
    not_before: float = 0.0
    looked: float = 0.0
    answered: float = 0.0


class Supervisor:
    """Runs the stack of one home until it is told to stop.

    What it writes for information (the state file, logs, messages) does not end it: when that fails, on a full disk
    say, it says so once, and writes the state again when it can.

    Args:
        settings: home, host, ports, time limits.
        services: what is run; default: the whole stack.
        say: called with a message for people when a service dies, is restarted or is back.
    """

    def __init__(self, settings: Settings, services: Sequence[Service] | None = None, say: Say = print) -> None:
        self.settings = settings
        self._say = say
        self._services = services
        self._watched: list[Watched] = []
        self._stop = threading.Event()
        self._unwritten: float | None = None  # since the state could not be written: when it is tried again

    def say(self, words: str) -> None:
        """Say something to people; a terminal that is gone or a log that cannot be written is no reason to end."""
        with suppress(OSError, ValueError):  # ValueError: the stream was closed
            self._say(words)

    def stop(self) -> None:
        """Ask :meth:`run` to end the services and return. May be called from a signal handler."""
        self._stop.set()

    def run(self, when_healthy: Callable[[State], None]) -> None:
        """Run the stack until :meth:`stop` is called, then end all services.

        Args:
            when_healthy: called once with the state, when every service has answered.

        Raises:
            BusyError: if a stack of this home runs already, or a port is taken.
            ServiceError: if a service does not come up.
            StoreError: if the home cannot be written.
        """
        with supervising(self.settings.home):
            end_leftovers(self.settings.home)
            logs = self.settings.home / "logs"
            try:
                logs.mkdir(exist_ok=True)
            except OSError as error:
                raise StoreError(
                    f"the folder of the logs, {logs}, cannot be made: {error.strerror or error}"
                ) from error
            services = list(self._services if self._services is not None else services_of(self.settings))
            check_ports(self.settings.host, services)
            self._watched = [Watched(service, logs / f"{service.name}.log") for service in services]
            try:
                self._write()
                self._until_stopped(when_healthy)
            finally:
                self._end()
                remove_state(self.settings.home)

    def _until_stopped(self, when_healthy: Callable[[State], None]) -> None:
        told = False
        while not self._stop.is_set():
            for one in self._watched:
                self._attend(one)
            if not told and all(one.healthy for one in self._watched):
                told = True
                self._tell(when_healthy, self._write())
            elif self._unwritten is not None and time.monotonic() >= self._unwritten:
                self._write()
            self._stop.wait(TICK_S)

    def _tell(self, when_healthy: Callable[[State], None], state: State) -> None:
        try:
            when_healthy(state)
        except (OSError, ValueError, StoreError) as error:  # no login link can be made, or nothing can be printed
            self.say(f"all services answer, but this could not be shown: {error}; see it with: tournament up")

    def _attend(self, one: Watched) -> None:
        """Do what is due for a service: start it, check its health, or handle its death."""
        if one.process is None:
            ready = {each.service.name for each in self._watched if each.healthy}
            if time.monotonic() >= one.not_before and ready.issuperset(one.service.after):
                self._start(one)
        elif one.process.poll() is not None:
            self._bury(one, "died")
        elif not one.healthy:
            if _answers(one.service, _wall(one.started)):
                one.healthy = one.was_healthy = True
                one.looked = one.answered = time.monotonic()
                if one.deaths:
                    self.say(f"{one.service.name} is back after {time.monotonic() - one.started:.1f} s")
            elif time.monotonic() - one.started > self.settings.startup_timeout_s:
                self._bury(one, f"did not answer for {self.settings.startup_timeout_s:g} s (setting startup_timeout_s)")

        else:
            self._look(one)

    def _look(self, one: Watched) -> None:
        """Check a healthy service from time to time; one that has not answered for long is restarted."""
        now, limit = time.monotonic(), self.settings.hang_timeout_s
        if now - one.looked < min(LOOK_S, limit / 3):
            return
        one.looked = now
        if _answers(one.service, _wall(now - limit)):
            one.answered = time.monotonic()
        elif now - one.answered > limit and self._steady(one.service.after, limit):
            self._bury(one, f"has not answered for {limit:g} s (setting hang_timeout_s)")

    def _steady(self, names: Sequence[str], seconds: float) -> bool:
        """Tell whether services have run for more than twice `seconds`; if not, they may be what does not answer."""
        others = [each for each in self._watched if each.service.name in names]
        return all(each.healthy and time.monotonic() - each.started > 2 * seconds for each in others)

    def _start(self, one: Watched) -> None:
        one.started, one.healthy = time.monotonic(), False
        try:
            with self._open_log(one.log) as log:
                one.process = start_group(
                    one.service.command,
                    stdout=log,
                    stderr=log,
                    env=os.environ | one.service.environment,
                    cwd=self.settings.home,  # Prefect imports from the current folder first
                )
        except OSError as error:  # no process, no memory or no file descriptor is left
            self._bury(one, f"could not be started ({error.strerror or error})")
            return
        self._write()

    def _open_log(self, path: Path) -> BinaryIO:
        """Open the log of a service, a new one when it has grown large; one that cannot be opened is done without."""
        try:
            if path.is_file() and path.stat().st_size > LOG_BYTES:
                publish(path, path.with_suffix(".log.1"))
        except OSError as error:
            self.say(f"the log {path} is large, cannot be rotated, and keeps growing: {error.strerror or error}")
        try:
            return path.open("ab")
        except OSError as error:
            self.say(f"the log {path} cannot be opened, nothing is written to it: {error.strerror or error}")
            return open(os.devnull, "ab")

    def _bury(self, one: Watched, how: str) -> None:
        """End a service's process and set the time of its next start; raise ServiceError for one that never ran."""
        if one.process is not None:
            _kill(one.process.pid, signal.SIGKILL)
            one.process.wait()
            one.process = None
        one.deaths = 1 if one.healthy and time.monotonic() - one.started > STEADY_S else one.deaths + 1
        one.healthy = False
        if not one.was_healthy and one.deaths >= FIRST_TRIES:
            raise ServiceError(
                f"{one.service.name} {how} before it was up, {counted(one.deaths, 'time')}; its log {one.log} ends "
                f"with: {_last_words(one.log)}"
            )
        wait = BACKOFF_S[min(one.deaths, len(BACKOFF_S)) - 1]
        one.not_before = time.monotonic() + wait
        self.say(f"{one.service.name} {how}; it is started again in {wait:g} s")

    def _end(self) -> None:
        """End the services that depend on others first: a worker reports its runs to a server that still listens."""
        servers = [one for one in self._watched if not one.service.after]
        for group in ([one for one in self._watched if one.service.after], servers):
            processes = {one.process.pid: one.process for one in group if one.process is not None}
            end_groups(list(processes), partial(_runs, processes))

    def _state(self) -> State:
        return State(
            supervisor=Process.of(os.getpid()),
            services={one.service.name: Process.of(one.process.pid) for one in self._watched if one.process},
            addresses={one.service.name: one.service.address for one in self._watched if one.service.address},
            api=api_url(self.settings),
            tracking_uri=without_password(self.settings.tracking_uri),
            data=self.settings.data or "",
            healthy=all(one.was_healthy for one in self._watched),
        )

    def _write(self) -> State:
        """Write what runs to the state file and return it; when it cannot be written, it is written again later."""
        state = self._state()
        try:
            write_state(self.settings.home, state)
        except OSError as error:
            if self._unwritten is None:
                self.say(
                    f"the state in {self.settings.home / 'stack'} cannot be written ({error.strerror or error}); the "
                    "services run on, and it is written as soon as it can be"
                )
            self._unwritten = time.monotonic() + WRITE_S
        else:
            if self._unwritten is not None:
                self.say("the state is written again")
            self._unwritten = None
        return state


def check_ports(host: str, services: Sequence[Service]) -> None:
    """Check that the ports of the stack are free.

    Args:
        host: address that the services listen on.
        services: those to start.

    Raises:
        BusyError: if a port is taken; the message names the port, its setting and the process that listens.
    """
    for service in services:
        if service.port is not None and (who := who_listens(host, service.port)):
            variable = f"TOURNAMENT_{service.setting.upper()}"
            raise BusyError(
                f"port {service.port} on {host}, where {service.name} listens, is taken: {who}; end it, or choose "
                f"another port with the setting {service.setting} ({variable}, or in tournament.toml)"
            )


def end_leftovers(home: Path) -> list[str]:
    """End the services that a killed supervisor left running; processes are told by id and start time.

    Args:
        home: folder of all state.

    Returns:
        Names of the services that were ended; empty while the supervisor runs.
    """
    state = read_state(home)
    if state is None or state.supervisor.is_alive():
        return []
    left = {name: process for name, process in state.services.items() if process.is_alive()}
    alive = {process.pid: process for process in left.values()}
    end_groups(list(alive), lambda pid: alive[pid].is_alive(), LEFTOVER_S)
    remove_state(home)
    return list(left)


def _wall(moment: float) -> float:
    """Return a moment of `time.monotonic` in seconds since 1970, by the clock as it is now."""
    return time.time() - (time.monotonic() - moment)


def end_groups(leaders: Sequence[int], runs: Callable[[int], bool], grace_s: float = STOP_S) -> None:
    """Send SIGTERM to process groups, SIGKILL to those that still run later, and wait until all have ended.

    Args:
        leaders: process ids of the groups' leaders.
        runs: called with such an id; returns whether the leader still runs.
        grace_s: seconds from SIGTERM to SIGKILL.
    """
    for pid in leaders:
        _kill(pid, signal.SIGTERM)
    end = time.monotonic() + grace_s
    while time.monotonic() < end and any(runs(pid) for pid in leaders):
        time.sleep(0.05)
    for pid in leaders:
        if runs(pid):
            _kill(pid, signal.SIGKILL)
    while any(runs(pid) for pid in leaders):
        time.sleep(0.05)


def warning_of(host: str) -> str:
    """Return a warning about an address that other machines reach, "" for loopback."""
    if is_loopback(host):
        return ""
    return (
        f"warning: the servers listen on {host}, over plain HTTP: anyone who reaches this machine can read and change "
        "what is in MLflow; only Prefect asks for a password. docs/production.md shows a stack with secrets"
    )


def _runs(processes: Mapping[int, subprocess.Popen[bytes]], pid: int) -> bool:
    return processes[pid].poll() is None


def _kill(group: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _answers(service: Service, since: float) -> bool:
    """Make a service's health check; whatever goes wrong in it, such as an answer that cannot be read, is no answer."""
    try:
        return service.health(since)
    except Exception:
        return False


def _last_words(log: Path) -> str:
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return f"(it cannot be read: {error.strerror or error})"
    lines = [line for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-3:]) or "nothing"
