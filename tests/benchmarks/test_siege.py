"""The siege: every attack runs and ends, and what the client saw is judged beside the phase without one."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time

import pytest

from benchmarks.load.attackers import ATTACKS, Target, attack
from benchmarks.siege import Phase, descriptors, figures_of, kill_replicas
from esci_tournament.deployments.crowd import ConnectionLimits
from tests.deployments.test_connections import get, running

KEY = "esci_0123456789ab_" + "A" * 43


def test_every_attack_runs_and_ends_and_leaves_nothing_behind() -> None:
    limits = ConnectionLimits(connections=64, per_address=None, head_s=0.5, body_s=0.5, idle_s=1.0)
    with running(limits) as (server, connect):
        port = connect().getpeername()[1]
        target = Target(
            "127.0.0.1", port, dict.fromkeys(ATTACKS, KEY), time.monotonic() + 2.0, [("usb lamp", ["B1", "B2"])]
        )
        asyncio.run(attack(target, list(ATTACKS), share=0.02))
        assert set(target.outcomes) == set(ATTACKS)
        assert all(outcomes.total() for outcomes in target.outcomes.values())
        assert get(connect()).startswith(b"HTTP/1.1 200")
        end = time.monotonic() + 6
        while len(server.crowd) > 1 and time.monotonic() < end:
            time.sleep(0.05)
        assert len(server.crowd) <= 1
        assert server.crowd.bodies == 0
        assert not server.failures


def test_an_attack_is_judged_beside_the_phase_without_one() -> None:
    calm = Phase("no attack", [10.0] * 100)
    slow = Phase("churn", [31.0] * 100, failed=1)
    wrong = Phase("spellings", [20.0] * 100, wrong=2)
    figures = {one.name: one for one in figures_of(calm, [slow, wrong])}
    assert figures["churn: p99 over that of no attack"].met is False
    assert figures["spellings: p99 over that of no attack"].met is True
    assert figures["wrong labels"].value == 2
    assert figures["wrong labels"].met is False
    assert figures["pages without an answer"].met is False
    assert figures["/healthz without an answer within 1 s"].met is True


def test_a_phase_without_answers_meets_no_target() -> None:
    figures = {one.name: one for one in figures_of(Phase("no attack", [10.0]), [Phase("churn")])}
    assert figures["churn: p99 over that of no attack"].met is False


@pytest.mark.slow
def test_only_replicas_are_killed() -> None:
    """Processes of processes, as the scorer has them."""
    leaf = "import time; time.sleep(60)"
    start = "import subprocess, sys; started = [subprocess.Popen([sys.executable, '-c', {!r}]) for _ in {!r}]"
    wait = "; [one.wait() for one in started]"
    keeper = start.format(leaf, "ab") + wait
    zygote = start.format(keeper, "a") + wait
    scorer = start.format(zygote, "a") + wait
    with subprocess.Popen([sys.executable, "-c", scorer], start_new_session=True) as process:
        try:
            time.sleep(2)
            assert descriptors(process.pid) > 0
            stop = threading.Event()
            threading.Timer(1.0, stop.set).start()
            assert kill_replicas(process.pid, stop, 0.2) == 1, "the last replica is left alone"
        finally:
            os.killpg(process.pid, 9)
