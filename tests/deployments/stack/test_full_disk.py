"""What the supervisor writes for information does not end it: a full disk, a log that is no file, a closed terminal."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from esci_tournament.deployments.stack import supervise
from esci_tournament.deployments.stack.services import Service
from esci_tournament.deployments.stack.state import State, read_state
from esci_tournament.deployments.stack.supervise import Supervisor
from esci_tournament.registry import files
from esci_tournament.registry.errors import ServiceError, StoreError
from esci_tournament.registry.settings import read_settings

SLEEPS = Service("mlflow", (sys.executable, "-c", "import time; time.sleep(60)"), {}, lambda _: True)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TICK_S": 0.02, "BACKOFF_S": (0.01,), "WRITE_S": 0.05}.items():
        monkeypatch.setattr(supervise, name, value)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB; skipped where none can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@contextmanager
def supervised(home: Path, say: supervise.Say, service: Service = SLEEPS) -> Iterator[Supervisor]:
    """Run a supervisor beside the block, and check that it has outlived it."""
    states: list[State] = []
    supervisor = Supervisor(read_settings(home=home), [service], say=say)
    thread = threading.Thread(target=supervisor.run, args=(states.append,), daemon=True)
    thread.start()
    try:
        until(lambda: states)
        yield supervisor
        assert thread.is_alive()
    finally:
        supervisor.stop()
        thread.join(20)


def restarted(supervisor: Supervisor) -> int:
    """Kill the service and return the process id of the one that takes its place."""
    (one,) = supervisor._watched
    assert one.process is not None
    before = one.process.pid
    one.process.kill()
    until(lambda: one.process is not None and one.process.pid != before and one.healthy)
    assert one.process is not None
    return one.process.pid


def written(home: Path, pid: int) -> bool:
    state = read_state(home)
    return state is not None and state.healthy and state.services["mlflow"].pid == pid


def test_on_a_full_disk_services_are_restarted_and_the_state_is_written_when_there_is_room(small_disk: Path) -> None:
    said: list[str] = []
    home = small_disk / "home"
    with supervised(home, said.append) as supervisor:
        with suppress(OSError), (small_disk / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(4096))
        pid = restarted(supervisor)
        until(lambda: any("cannot be written (No space left on device)" in words for words in said))
        pid = restarted(supervisor)
        assert not written(home, pid)
        (small_disk / "ballast").unlink()
        until(lambda: written(home, pid))
    assert sum("cannot be written" in words for words in said) == 1
    assert "the state is written again" in said


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS])
def test_a_state_that_cannot_be_written_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, "out of order")

    said: list[str] = []
    with supervised(tmp_path, said.append) as supervisor:
        with monkeypatch.context() as broken:
            broken.setattr(files, "publish", fail)
            pid = restarted(supervisor)
            until(lambda: any("out of order" in words for words in said))
        until(lambda: written(tmp_path, pid))


def test_a_log_that_cannot_be_opened_or_set_aside_is_said_and_the_service_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    with supervised(tmp_path, said.append) as supervisor:
        (one,) = supervisor._watched
        one.log.write_text("much")
        monkeypatch.setattr(supervise, "LOG_BYTES", 1)
        one.log.with_suffix(".log.1").mkdir()
        (one.log.with_suffix(".log.1") / "in the way").touch()
        restarted(supervisor)
        one.log.unlink()
        one.log.mkdir()
        restarted(supervisor)
    assert any("cannot be rotated" in words for words in said)
    assert any("cannot be opened" in words for words in said)


def test_what_cannot_be_said_is_not_said(tmp_path: Path) -> None:
    def say(words: str) -> None:
        with open("/dev/full", "w", encoding="utf-8") as full:  # every write fails: no space left on device
            full.write(words)

    with supervised(tmp_path, say) as supervisor:
        restarted(supervisor)


def test_who_cannot_be_told_that_all_answer_does_not_end_it(tmp_path: Path) -> None:
    said: list[str] = []
    supervisor = Supervisor(read_settings(home=tmp_path), [SLEEPS], say=said.append)

    def fail(_: State) -> None:
        raise StoreError("no login can be made: the disk is full")

    thread = threading.Thread(target=supervisor.run, args=(fail,), daemon=True)
    thread.start()
    until(lambda: any("the disk is full; see it with: tournament up" in words for words in said))
    supervisor.stop()
    thread.join(20)
    assert not thread.is_alive()


def test_a_health_check_that_fails_is_no_answer(tmp_path: Path) -> None:
    answers = iter([ValueError("no JSON"), True])

    def health(_: float) -> bool:
        answer = next(answers, True)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with supervised(tmp_path, lambda _: None, replace(SLEEPS, health=health)):
        assert next(answers, None) is None


def test_a_program_that_cannot_be_started_is_tried_again_and_then_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    with supervised(tmp_path, lambda _: None) as supervisor:
        with monkeypatch.context() as broken:
            broken.setattr(supervise, "start_group", fail)
            (one,) = supervisor._watched
            assert one.process is not None
            one.process.kill()
            until(lambda: one.deaths >= 3)
        until(lambda: one.healthy)
    monkeypatch.setattr(supervise, "start_group", fail)
    with pytest.raises(ServiceError, match=r"could not be started \(Resource temporarily unavailable\)"):
        Supervisor(read_settings(home=tmp_path / "new"), [SLEEPS], say=lambda _: None).run(lambda _: None)
