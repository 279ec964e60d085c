"""What the keeper's processes do apart: work in a fork, work that gives way, a child for each request."""

from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from esci_tournament.deployments.scorer.compute.keeper import apart, embed_members, fork_on_request, patiently
from esci_tournament.deployments.scorer.compute.loading import Job
from esci_tournament.deployments.scorer.compute.wire import Header, pack, receive, send_with
from esci_tournament.registry.errors import TournamentError


def test_what_is_done_apart_leaves_no_trace_here_but_its_answer() -> None:
    done: list[int] = []
    child, answer = apart(lambda: [os.getpid(), done.append(1) or len(done)])
    assert answer == 1
    assert done == []
    assert child != os.getpid()


def test_what_fails_apart_fails_here_with_its_words() -> None:
    with pytest.raises(TournamentError, match=r"^ZeroDivisionError: division by zero$"):
        apart(lambda: 1 / 0)

    def refuse() -> None:
        raise TournamentError("it is damaged")

    with pytest.raises(TournamentError, match=r"^it is damaged$"):
        apart(refuse)


def test_a_process_apart_that_is_killed_is_told_from_one_that_fails() -> None:
    with pytest.raises(TournamentError, match="ended before it had done its work"):
        apart(lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_patient_work_gives_way_in_its_own_thread_alone() -> None:
    def priority() -> tuple[int, int]:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), threading.get_native_id()

    before, here = priority()
    during, there = patiently(priority)
    assert there != here
    assert during > before
    assert priority() == (before, here)


def test_each_request_is_done_by_a_child_of_its_own_which_does_not_keep_the_others_socket() -> None:
    ours, control = socket.socketpair()
    pairs = [socket.socketpair() for _ in range(2)]

    def work(header: Header, connection: socket.socket) -> None:
        connection.sendall(pack({"did": header["number"], "pid": os.getpid(), "closed": control.fileno() == -1}))

    with ours:
        for number, (_, its) in enumerate(pairs):
            with its:
                send_with(ours, {"number": number}, its)
    before = signal.getsignal(signal.SIGCHLD)
    try:
        with control:
            fork_on_request(control, work)
    finally:
        signal.signal(signal.SIGCHLD, before)
    said = []
    for mine, _ in pairs:
        with mine:
            message = receive(mine)
            assert message is not None
            assert receive(mine) is None  # the child has ended
            said.append(message[0])
    assert [one["did"] for one in said] == [0, 1]
    assert all(one["closed"] for one in said)
    assert len({os.getpid(), *(one["pid"] for one in said)}) == 3


def test_without_a_catalogue_there_is_nothing_to_compute_ahead(tmp_path: Path) -> None:
    job = Job(tmp_path, "cpu", None, 1, 100, None, "data", tmp_path / "vectors")
    assert embed_members(job, {}) == {}
