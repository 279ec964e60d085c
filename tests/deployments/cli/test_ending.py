"""SIGTERM, SIGHUP and SIGINT end every command within its grace, whatever it waits for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from esci_tournament.deployments.cli.ending import GRACE_S
from esci_tournament.registry.locks import tournament_lock
from tests.harness import COMMAND, clean_environment, until

# What a command may be doing: each says "here" when it has begun.
WAITS = {
    "sleeps": "print('here', flush=True); time.sleep(60)",
    "waits for a thread, as a flow for its tasks": """
        with ThreadPoolExecutor() as pool:
            pool.submit(time.sleep, 60)
            print('here', flush=True)
    """,
    "has a library's handler, which raises what nobody knows": """
        class Theirs(BaseException): ...
        def raises(*_): raise Theirs
        signal.signal(signal.SIGTERM, raises)
        print('here', flush=True)
        time.sleep(60)
    """,
    "has a library's handler, which does nothing": """
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        print('here', flush=True)
        end = time.monotonic() + 60
        while time.monotonic() < end: time.sleep(1)
    """,
}


def program(body: str, grace_s: float = 0.5, ignored: tuple[int, ...] = ()) -> subprocess.Popen[str]:
    """Start the program with a command that does this, some signals ignored, and wait until it has begun."""
    script = f"""
import signal, sys, time
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import patch
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever these tests were started with, such as nohup
signal.signal(signal.SIGHUP, signal.SIG_DFL)
for number in {[int(one) for one in ignored]}:
    signal.signal(number, signal.SIG_IGN)
from esci_tournament.deployments import cli
cli.ending.grace_s = {grace_s}
def work(options, output):
{textwrap.indent(textwrap.dedent(body), "    ")}
with patch("esci_tournament.deployments.cli.doctor.work", work):
    sys.argv = ["tournament", "doctor"]
    cli.entry()
"""
    started = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert started.stderr is not None
    assert started.stderr.readline() == "here\n"  # a command's own output goes to standard error while it runs
    return started


@pytest.mark.parametrize("body", WAITS.values(), ids=WAITS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_command_ends_within_its_grace_and_says_why(body: str, number: signal.Signals) -> None:
    if "Theirs" in body and number != signal.SIGTERM:
        pytest.skip("their handler is for SIGTERM")
    with program(body) as running:
        began = time.monotonic()
        running.send_signal(number)
        said = running.communicate(timeout=20)[1]
        assert time.monotonic() - began < 5
    assert running.returncode == 128 + number
    assert ("the same command continues" in said) or "Theirs" in body


def test_a_second_ctrl_c_ends_at_once() -> None:
    with program(WAITS["waits for a thread, as a flow for its tasks"], grace_s=60) as running:
        for _ in range(2):
            running.send_signal(signal.SIGINT)
            time.sleep(0.3)
        running.communicate(timeout=10)
    assert running.returncode == 130


def test_what_lets_go_of_things_is_not_disturbed_by_more_signals() -> None:
    body = """
        try:
            print('here', flush=True)
            time.sleep(60)
        finally:
            time.sleep(0.5)
            print('let go', flush=True)
    """
    with program(body, grace_s=20) as running:
        for _ in range(3):
            running.send_signal(signal.SIGTERM)
            time.sleep(0.05)
        said = running.communicate(timeout=10)[1]
    assert running.returncode == 143
    assert "let go" in said


def test_a_signal_that_is_ignored_from_outside_stays_ignored() -> None:
    """As nohup has it."""
    running = program("print('here', flush=True); time.sleep(1.5)", ignored=(signal.SIGHUP,))
    with running:
        running.send_signal(signal.SIGHUP)
        running.communicate(timeout=20)
    assert running.returncode == 0


LONG = """
[[candidate]]
name = "long"
family = "graph_network"
architecture = "graphsage"
recipe = { epochs = %d, hidden_size = 16, text_dimensions = 16, layers = 1 }
"""


@pytest.mark.slow
def test_a_run_that_trains_ends_in_seconds_with_all_that_it_started(tiny_world: Path, tmp_path: Path) -> None:
    """It ignored SIGTERM for six minutes; a whole group is told, as systemd tells a control group.

    That the next run goes on where one was killed is tried in tests/deployments/test_kill.py.
    """
    specs, home = tmp_path / "long.toml", tmp_path / "home"
    specs.write_text(LONG % 10, encoding="utf-8")
    command = [*COMMAND, "run", "--home", str(home), "--data", str(tiny_world), "--candidates", str(specs)]
    environment = clean_environment(TOURNAMENT_MINIMUM_TEST_QUERIES=10, OMP_NUM_THREADS=1)
    with (tmp_path / "said").open("wb") as said:
        running = subprocess.Popen(
            command, env=environment, cwd=tmp_path, stdout=said, stderr=said, start_new_session=True
        )
    family: list[psutil.Process] = []
    try:
        until(lambda: list(home.glob("stages/work/train-*/*.safetensors")), 180, "a checkpoint of the training")
        family = [psutil.Process(running.pid), *psutil.Process(running.pid).children(recursive=True)]
        began = time.monotonic()
        os.killpg(running.pid, signal.SIGTERM)
        assert running.wait(60) == 143, (tmp_path / "said").read_text()
        assert time.monotonic() - began < GRACE_S + 3
        assert psutil.wait_procs(family, timeout=15)[1] == []
    finally:
        for one in family:
            if one.is_running():
                one.kill()
    with tournament_lock(home):
        pass
