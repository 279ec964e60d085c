"""What the keeper's processes do apart: work in a fork, work that gives way, a child for each request."""

from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path

import psutil
import pytest

from esci_tournament.deployments.scorer.catalogue import Text
from esci_tournament.deployments.scorer.compute import keeper
from esci_tournament.deployments.scorer.compute.keeper import apart, embed_members, fork_on_request, patiently
from esci_tournament.deployments.scorer.compute.loading import Job
from esci_tournament.deployments.scorer.compute.pairs import Pairs
from esci_tournament.deployments.scorer.compute.wire import Header, pack, receive, send_with
from esci_tournament.registry.errors import TournamentError
from esci_tournament.tasks.ensemble.aggregate import Aggregator
from esci_tournament.tasks.ensemble.subsets import Subsets
from tests.deployments.scorer.conftest import constant_ensemble


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


@pytest.mark.slow  # it starts a process that imports everything
def test_where_a_forked_process_cannot_compute_a_replica_is_a_fresh_one(
    fitted: tuple[Aggregator, Subsets], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU when a library has initialised CUDA before the fork."""
    monkeypatch.setattr(keeper, "_devices", lambda name: (["cpu"], False))
    job = Job(constant_ensemble(tmp_path / "ensemble", fitted, 0), "cpu", 1, 1, 100, None, "data", tmp_path / "vectors")
    control, its = socket.socketpair()
    if not (child := os.fork()):
        control.close()
        keeper._live(lambda: keeper.keep(job.to_json(), its))
    its.close()
    page = Pairs("lamp", "us", [Text("P1", "a lamp", "", "", "", "")])
    with control:
        said = receive(control)
        assert said is not None
        assert said[0]["kept"] == list(job.folders)
        mine, other = socket.socketpair()
        with mine:
            with other:
                send_with(control, {"as": "replica", "number": 1}, other)
            ready = receive(mine)
            assert ready is not None
            replica = psutil.Process(ready[0]["replica"])
            assert "anew" in replica.cmdline()
            places = {"pages": [(1, len(page.encoded))], "slices": [(1, 0, 1)], "forget": []}
            mine.sendall(pack({"batch": 7, "member": next(iter(job.folders)), **places}, [page.encoded]))
            answer = receive(mine)
            assert answer is not None
            assert (answer[0]["batch"], answer[0]["answers"]) == (7, [1])
        replica.wait(10)  # it ends with its socket
    os.waitpid(child, 0)
