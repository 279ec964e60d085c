"""The supervisor, with small real servers in place of the large ones."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from esci_tournament.deployments.stack.services import Service, environment_of
from esci_tournament.deployments.stack.state import (
    Process,
    State,
    prefect_api_url,
    read_state,
    running,
    stack_folder,
    write_state,
)
from esci_tournament.deployments.stack.supervise import Supervisor, end_leftovers
from esci_tournament.registry.errors import BusyError, ServiceError, StoreError
from esci_tournament.registry.settings import Settings, read_settings

pytestmark = pytest.mark.slow

WAIT_S = 20.0
# Like MLflow's, this server is a child of the command that is started.
NESTED = "import subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]])"


def small(name: str, port: int, after: tuple[str, ...] = ()) -> Service:
    """Return a service that serves an empty folder, from a process of a process."""
    return Service(
        name=name,
        command=(
            *(sys.executable, "-c", NESTED, "-m", "http.server", str(port), "--bind", "127.0.0.1"),
            *("--directory", "/var/empty" if Path("/var/empty").is_dir() else "/mnt"),
        ),
        environment={},
        health=lambda _: answers(port),
        address=f"http://127.0.0.1:{port}",
        port=port,
        setting=f"{name}_port",
        after=after,
    )


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/", timeout=1).status_code == 200
    except httpx.HTTPError:
        return False


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.05)


@pytest.fixture
def ports() -> tuple[int, int]:
    """Two free ports."""
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return read_settings(home=tmp_path / "home", hang_timeout_s=2.0)


@pytest.fixture
def stack(settings: Settings, ports: tuple[int, int]) -> Iterator[tuple[State, list[str]]]:
    """Two small servers under a supervisor; yields their state and what the supervisor says."""
    said: list[str] = []
    states: list[State] = []
    services = [small("prefect", ports[0]), small("watcher", ports[1], after=("prefect",))]
    supervisor = Supervisor(settings, services, say=said.append)
    running = threading.Thread(target=supervisor.run, args=(states.append,))
    running.start()
    try:
        until(lambda: states)
        yield states[0], said
    finally:
        supervisor.stop()
        running.join()
    assert not any(answers(port) for port in ports)
    assert read_state(settings.home) is None


def serving(leader: Process) -> list[psutil.Process]:
    """Return the processes below the one that leads a service's group, the innermost last."""
    return psutil.Process(leader.pid).children(recursive=True)


def test_all_answer_and_the_state_says_where(settings, stack, ports) -> None:
    state, _ = stack
    assert all(answers(port) for port in ports)
    assert running(settings.home) == state
    assert state.healthy
    assert state.addresses == {"prefect": f"http://127.0.0.1:{ports[0]}", "watcher": f"http://127.0.0.1:{ports[1]}"}
    assert prefect_api_url(settings.home) == "http://127.0.0.1:4200/api"


def test_who_hangs_is_started_again_and_nobody_else_is_touched(settings, stack, ports) -> None:
    state, said = stack
    serving(state.services["prefect"])[1].suspend()
    until(lambda: any("prefect has not answered for 2 s" in line for line in said))
    until(lambda: any("prefect is back" in line for line in said))
    now = running(settings.home)
    assert now is not None
    assert answers(ports[0])
    assert now.services["watcher"] == state.services["watcher"]


@pytest.mark.parametrize("depth", [0, 1], ids=["command", "its child"])
def test_who_is_killed_is_back_in_seconds_and_nobody_else_is_touched(settings, stack, ports, depth) -> None:
    state, said = stack
    serving(state.services["prefect"])[depth].kill()
    until(lambda: any("prefect is back" in line for line in said))
    now = running(settings.home)
    assert now is not None
    assert answers(ports[0])
    assert now.services["prefect"] != state.services["prefect"]
    assert now.services["watcher"] == state.services["watcher"]


def test_a_home_has_one_supervisor(settings, stack) -> None:
    with pytest.raises(BusyError, match="runs already"):
        Supervisor(settings, []).run(lambda _: None)


SUPERVISOR = """
import sys, threading
sys.path.insert(0, sys.argv[4])
from pathlib import Path
from test_supervise import small
from esci_tournament.deployments.stack.supervise import Supervisor
from esci_tournament.registry.settings import read_settings
services = [small("prefect", int(sys.argv[2])), small("watcher", int(sys.argv[3]))]
Supervisor(read_settings(home=Path(sys.argv[1])), services).run(lambda _: print("healthy", flush=True))
"""


@pytest.fixture
def elsewhere(settings, ports) -> Iterator[subprocess.Popen[str]]:
    """The two servers under a supervisor that is a process of its own."""
    arguments = [settings.home, *ports, Path(__file__).parent]
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SUPERVISOR), *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "healthy\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_when_the_supervisor_is_killed_all_end_by_themselves(settings, elsewhere, ports) -> None:
    elsewhere.kill()
    elsewhere.wait()
    until(lambda: not any(answers(port) for port in ports))
    state = read_state(settings.home)
    assert state is not None
    until(lambda: not any(process.is_alive() for process in state.services.values()))
    assert running(settings.home) is None
    assert prefect_api_url(settings.home) is None


def test_the_next_supervisor_does_not_wait_for_what_a_killed_one_left(settings, elsewhere, ports) -> None:
    state = read_state(settings.home)
    assert state is not None
    for leader in state.services.values():  # nothing ends by itself any more
        os.kill(leader.pid, signal.SIGSTOP)
    elsewhere.kill()
    elsewhere.wait()
    healthy: list[State] = []
    supervisor = Supervisor(settings, [small("prefect", ports[0])])
    follower = threading.Thread(target=supervisor.run, args=(healthy.append,))
    follower.start()
    try:
        until(lambda: healthy)
    finally:
        supervisor.stop()
        follower.join()
    assert not any(process.is_alive() for process in state.services.values())


def test_a_number_that_another_process_has_now_is_left_alone(settings) -> None:
    innocent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    try:
        stack_folder(settings.home)
        then = Process.of(innocent.pid).started - 3600
        write_state(settings.home, State(Process(innocent.pid, then), {"prefect": Process(innocent.pid, then)}))
        assert running(settings.home) is None
        assert end_leftovers(settings.home) == []
        assert innocent.poll() is None
        assert read_state(settings.home) is None
    finally:
        innocent.kill()
        innocent.wait()


def test_a_taken_port_is_named_with_its_setting_and_its_owner(settings, ports) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", ports[0]))
        other.listen()
        with pytest.raises(BusyError) as failure:
            Supervisor(settings, [small("prefect", ports[0])]).run(lambda _: None)
    for words in (f"port {ports[0]}", "prefect_port", "TOURNAMENT_PREFECT_PORT", f"process {os.getpid()}"):
        assert words in str(failure.value)


def test_what_cannot_start_is_said_with_the_end_of_its_log(settings) -> None:
    broken = Service("mlflow", (sys.executable, "-c", "raise SystemExit('no such table')"), {}, lambda _: False)
    with pytest.raises(ServiceError, match=r"mlflow died.* 2 times.*mlflow\.log ends with: .*no such table"):
        Supervisor(settings, [broken], say=lambda _: None).run(lambda _: None)


def test_what_never_answers_is_given_up(tmp_path: Path, ports) -> None:
    settings = read_settings(home=tmp_path, startup_timeout_s=0.5)
    deaf = Service("mlflow", small("mlflow", ports[0]).command, {}, lambda _: False, port=ports[0])
    with pytest.raises(ServiceError, match=r"did not answer for 0\.5 s \(setting startup_timeout_s\)"):
        Supervisor(settings, [deaf], say=lambda _: None).run(lambda _: None)
    assert not answers(ports[0])


def test_a_home_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"cannot be written.*--home"):
        Supervisor(read_settings(home=tmp_path / "file" / "home"), []).run(lambda _: None)


def test_services_read_the_settings_that_up_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = read_settings(
        home=tmp_path, data="esci", host="::1", allowed_pyfunc_sources=("models:/a", "b"), budget_latency_ms=12.5
    )
    for name, value in environment_of(given).items():
        monkeypatch.setenv(name, value)
    assert read_settings() == given
