"""A child process ends with its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from esci_tournament.registry import children
from esci_tournament.registry.children import EXIT_CODE, start_child, start_group

HEAD = "import os, socket, subprocess, sys, threading, time\nfrom esci_tournament.registry.children import *\n"
WAITS = HEAD + "print(os.getpid(), flush=True)\ntime.sleep(60)\n"  # a program that is not ours
CHILD = HEAD + "end_with_parent()\nassert sys.stdin.read() == ''\nprint(os.getpid(), flush=True)\ntime.sleep(60)\n"
LATE = HEAD + "print(os.getpid(), flush=True)\ntime.sleep(1)\nend_with_parent()\ntime.sleep(60)\n"
PARENT = HEAD + "start_child([sys.executable, '-c', {!r}], start_new_session={}).wait()\n"


def test_it_ends_when_its_parent_is_killed(killed: Killed) -> None:
    killed(PARENT.format(CHILD, False))


def test_it_ends_when_its_parent_was_killed_before_it_looked(killed: Killed) -> None:
    killed(PARENT.format(LATE, False))


def test_it_ends_when_its_grandparent_is_killed(killed: Killed) -> None:
    between = PARENT.format(CHILD, False).replace("start_child", "end_with_parent(); start_child")
    killed(PARENT.format(between, False))


def test_one_that_leads_a_group_takes_along_what_it_started(killed: Killed) -> None:
    leader = CHILD.replace("time.sleep(60)", f"subprocess.run([sys.executable, '-c', {WAITS!r}])")
    killed(PARENT.format(leader, True), processes=2)


def test_a_program_that_is_not_ours_ends_with_all_that_it_started(killed: Killed) -> None:
    nested = HEAD + f"print(os.getpid(), flush=True)\nsubprocess.run([sys.executable, '-c', {WAITS!r}])"
    killed(HEAD + f"start_group([sys.executable, '-c', {nested!r}]).wait()", processes=2)


def test_a_process_that_a_library_started_ends(killed: Killed) -> None:
    killed(HEAD + f"it = subprocess.Popen([sys.executable, '-c', {WAITS!r}])\nend_too(it.pid)\nit.wait()")


def test_a_forked_process_ends_though_data_waits_for_it(killed: Killed) -> None:
    killed(
        HEAD + "ours, its = socket.socketpair()\n"
        "ours.send(b'data')\n"
        "if not os.fork():\n"
        "    ours.close()\n"
        "    end_when_closed(its.fileno())\n"
        "    print(os.getpid(), flush=True)\n"
        "time.sleep(60)\n"
    )


def test_it_ends_though_a_fork_of_its_parent_lives_on(killed: Killed) -> None:
    killed(
        HEAD + f"it = start_child([sys.executable, '-c', {CHILD!r}])\n"
        "if not os.fork():\n"
        "    os.closerange(0, 3)\n"
        "    time.sleep(20)\n"
        "it.wait()\n"
    )


def test_it_lives_on_when_the_thread_that_started_it_is_gone(killed: Killed) -> None:
    killed(
        HEAD + "kept = []\n"
        f"start = lambda: kept.append(start_child([sys.executable, '-c', {CHILD!r}]))\n"
        "thread = threading.Thread(target=start)\n"
        "thread.start()\n"
        "thread.join()\n"
        "kept[0].wait()\n"
    )


def test_its_code_says_that_nobody_holds_it_any_more() -> None:
    child = start_child([sys.executable, "-c", CHILD], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    assert child.poll() is None
    children._held.pop(child)()
    assert child.wait(10) == EXIT_CODE


# It leaves a process behind.
LEAVES = (
    HEAD + f"it = subprocess.Popen([sys.executable, '-c', {WAITS!r}], stdout=subprocess.PIPE, text=True)\n"
    "print(it.stdout.readline(), flush=True)\n"
    "assert not sys.stdin.read()\n"
    "sys.exit(4)\n"
)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no device that is always full")
def test_a_group_ends_with_its_command_also_when_the_disk_of_its_log_is_full() -> None:
    with open("/dev/full", "wb") as full:
        group = start_group([sys.executable, "-c", LEAVES], stdout=subprocess.PIPE, stderr=full)
    assert group.stdout is not None
    left = int(group.stdout.readline())
    group.wait(20)
    _until_ended([left])


def test_a_group_ends_with_its_command_and_tells_how(capfd: pytest.CaptureFixture[str]) -> None:
    group = start_group([sys.executable, "-c", LEAVES], stdout=subprocess.PIPE)
    assert group.stdout is not None
    left = int(group.stdout.readline())
    group.wait(20)
    assert "ended by exit code 4" in capfd.readouterr().err
    _until_ended([left])


def test_what_cannot_be_started_leaves_nothing_open() -> None:
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(FileNotFoundError):
        start_child(["/no/such/program"])
    assert len(os.listdir("/dev/fd")) == before


class Killed:
    """Runs a script whose processes print their numbers, kills the script with kill -9, and waits for them to end."""

    def __init__(self) -> None:
        self.started: list[int] = []

    def __call__(self, script: str, processes: int = 1) -> None:
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
            self.started.append(parent.pid)
            assert parent.stdout is not None
            pids = [int(parent.stdout.readline()) for _ in range(processes)]
            self.started += pids
            time.sleep(0.2)
            assert all(_runs(pid) for pid in pids)
            parent.kill()
            _until_ended(pids)


@pytest.fixture
def killed() -> Iterator[Killed]:
    """See :class:`Killed`; nothing is left over, should a test fail."""
    killed = Killed()
    yield killed
    for pid in killed.started:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _until_ended(pids: list[int]) -> None:
    end = time.monotonic() + 10
    while time.monotonic() < end and any(_runs(pid) for pid in pids):
        time.sleep(0.05)
    assert not any(_runs(pid) for pid in pids)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
