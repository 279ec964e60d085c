"""Replicas that are processes; `keeper` describes which process is forked from which."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from esci_tournament.deployments.scorer.compute.loading import Job
from esci_tournament.deployments.scorer.compute.pairs import MemberBroken, NotAnswered, PageFailed, Pairs
from esci_tournament.deployments.scorer.compute.replica import Answer, Done, Ended, Replica, Slice
from esci_tournament.deployments.scorer.compute.wire import Header, Inbox, pack, receive, send_with
from esci_tournament.registry.errors import TournamentError
from esci_tournament.registry.labels import LABELS
from esci_tournament.registry.processes import module_path, python_module, usable_cores

_REMEMBERED = 64  # newest pages that need not be sent to a replica again; it is told which ones to forget
_REMEMBERED_BYTES = 4 * 2**20  # of these pages together, encoded
_START_SECONDS = 120.0
_KINDS: dict[str, type[NotAnswered]] = {kind.__name__: kind for kind in (NotAnswered, PageFailed, MemberBroken)}
# The threads of tokenizers do not survive a fork. Nor does CUDA, which torch initialises to find out whether there is a
# GPU, unless it is told to ask the driver's management library.
_FORKED = {"TOKENIZERS_PARALLELISM": "false", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
_BYTES = 4 * len(LABELS)  # of a pair's scores


class Zygote:
    """The process that all keepers are forked from; it is started when it is needed, and again when it is gone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def start(self) -> None:
        """Start the process if it does not run, without waiting for its imports."""
        with self._lock:
            self._started()

    def keeper(self, job: Job, seconds: float) -> tuple[socket.socket, Header]:
        """Fork a keeper that loads a champion; blocks while it loads.

        Args:
            job: what is loaded, and how.
            seconds: time limit.

        Returns:
            The keeper's socket, by which it is asked for replicas, and its first message: the keys kept (candidate ids)
            and devices (torch devices).

        Raises:
            TournamentError: if the champion cannot be loaded, or not in time.
        """
        for _ in range(2):
            ours, process = self._fork(job.to_json())
            ours.settimeout(seconds)
            try:
                said = receive(ours)
            except TimeoutError:
                ours.close()
                raise TournamentError(f"{job.ensemble.name} is not loaded within {seconds:g} s") from None
            if said is not None and "failed" not in said[0]:
                ours.settimeout(None)
                return ours, said[0]
            ours.close()
            if said is not None:
                raise TournamentError(f"{job.ensemble.name} cannot be loaded: {said[0]['failed']}")
            if process.poll() is None:  # else the zygote was killed, which says nothing about the champion
                break
        raise TournamentError(
            f"{job.ensemble.name} cannot be loaded: the process that loaded it ended; is there enough memory?"
        )

    def close(self) -> None:
        """End the process; keepers that were forked from it go on until their champion is closed."""
        with self._lock:
            self._end()

    def refresh(self, ensemble: Path, data: Path, target: Path, device: str) -> dict[str, int]:
        """Write a copy of an ensemble that knows newer data, in a process of low priority; blocks.

        Args:
            ensemble: folder of the ensemble.
            data: folder of the loaded data set.
            target: an empty folder that the copy is written into.
            device: auto, cpu, cuda or cuda:N.

        Returns:
            Candidate id -> number of products computed anew.

        Raises:
            TournamentError: if that fails.
        """
        ours, _ = self._fork({"refresh": [str(ensemble), str(data), str(target)], "device": device})
        with ours:
            said = receive(ours)
        if said is None or "failed" in said[0]:
            raise TournamentError(said[0]["failed"] if said else "the process that refreshed it ended")
        return dict(said[0]["came"])

    def _fork(self, asked: Header) -> tuple[socket.socket, subprocess.Popen[bytes]]:
        ours, its = socket.socketpair()
        with its, self._lock:
            try:
                send_with(self._started(), asked, its)
            except OSError:  # the process has ended since the last message
                self._end()
                send_with(self._started(), asked, its)
            assert self._process is not None
            return ours, self._process

    def _started(self) -> socket.socket:
        if self._control is not None and self._process is not None and self._process.poll() is None:
            return self._control
        self._end()
        ours, its = socket.socketpair()
        with its:
            self._process = subprocess.Popen(
                python_module("esci_tournament.deployments.scorer.compute.keeper", str(its.fileno())),
                pass_fds=[its.fileno()],
                env=os.environ | module_path() | _FORKED,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in the terminal is handled by the scorer
            )
        self._control = ours
        return ours

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()
        self._control = self._process = None


class ProcessFleet:
    """Replicas that are processes, forked from a keeper that has loaded the members.

    Args:
        zygote: the process that the keeper is forked from.
        job: what is loaded, and how.
        replicas: number of replicas; None for one on each core or GPU.
        check: called before the members are loaded again, when their keeper has died; raises when their files are not
            what they were.

    Attributes:
        size: number of replicas that the champion should have.
        devices: torch devices that they compute on.
    """

    def __init__(
        self, zygote: Zygote, job: Job, replicas: int | None, check: Callable[[], object] = lambda: None
    ) -> None:
        self._zygote, self._job, self._replicas, self._check = zygote, job, replicas, check
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._closed = False
        self._number = 0
        self._living: weakref.WeakSet[ProcessReplica] = weakref.WeakSet()
        self.size, self.devices = 1, ["cpu"]

    def start(self) -> None:
        """Load the members in a keeper; blocks while they load.

        Raises:
            TournamentError: if they cannot be loaded, or not within 120 s.
        """
        self._control, said = self._zygote.keeper(self._job, _START_SECONDS)
        self.devices = [str(device) for device in said["devices"]]
        self.size = self._replicas or (usable_cores() if self.devices == ["cpu"] else len(self.devices))

    async def replica(self, ended: Ended, patient: bool = False) -> Replica:
        """Fork one more replica and wait until it can compute.

        Args:
            ended: called with the replica and the reason when its process ends without having been told to.
            patient: whether its process has a low priority.

        Returns:
            The replica.

        Raises:
            TournamentError: if it does not start within 120 s, or the keeper is gone and cannot be replaced.
        """
        replica = ProcessReplica(ended)
        await self._fork("patient" if patient else "replica", replica)
        try:
            await asyncio.wait_for(asyncio.shield(replica.ready), _START_SECONDS)
        except TimeoutError:
            replica.give_up()
            raise TournamentError(f"a replica of {self._job.ensemble.name} does not start") from None
        self._living.add(replica)
        return replica

    async def embed(self) -> dict[str, int]:
        """Compute product vectors in a process of low priority. See :meth:`Fleet.embed`."""
        talk = _Talk()
        await self._fork("embedder", talk)
        held = dict(await talk.said)
        for replica in self._living:
            replica.hold()
        return held

    def close(self) -> None:
        """End the keeper; its replicas are ended by the dispatcher."""
        self._closed = True  # without the lock: a keeper may be loading
        if self._control is not None:
            self._control.close()

    async def _fork(self, what: str, protocol: asyncio.Protocol) -> None:
        loop = asyncio.get_running_loop()
        ours, its = socket.socketpair()
        with its:
            try:
                await loop.run_in_executor(None, self._ask_keeper, what, its)
            except OSError as error:
                ours.close()
                raise TournamentError(f"the keeper of {self._job.ensemble.name} is gone: {error}") from error
        ours.setblocking(False)
        await loop.create_unix_connection(lambda: protocol, sock=ours)

    def _ask_keeper(self, what: str, its: socket.socket) -> None:
        with self._lock:
            self._number += 1
            header = {"as": what, "number": self._number}
            if self._control is not None:
                try:
                    send_with(self._control, header, its)
                    return
                except OSError:  # it was killed: its replicas go on, and another one loads the members
                    self._control.close()
                    self._control = None
            if self._closed:
                raise ConnectionError("it was told to end")
            self._check()
            self._control, _ = self._zygote.keeper(self._job, _START_SECONDS)
            send_with(self._control, header, its)
            if self._closed:
                self._control.close()


class ProcessReplica(asyncio.Protocol):
    """A replica in a process of its own.

    Args:
        ended: called with the replica and the reason when its process ends without having been told to.

    Attributes:
        slots: batches that it computes at once.
        pid: process id, 0 until it is ready.
        ready: done when it can compute; has a TournamentError when its process ended before.
    """

    slots = 1
    killable = True

    def __init__(self, ended: Ended) -> None:
        self._ended = ended
        self._inbox = Inbox()
        self._transport: asyncio.Transport | None = None
        self._sent: dict[int, Done] = {}
        self._number = 0
        self._pages: OrderedDict[int, tuple[int, Pairs]] = OrderedDict()
        self._remembered_bytes = 0
        self._told_to_end = False
        self.pid = 0
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def alive(self) -> bool:
        """Whether its connection is open."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, member: str, slices: Sequence[Slice], done: Done) -> None:
        """Send a batch to the process; pages that it has already are not sent again. See :meth:`Replica.send`."""
        self._number += 1
        self._sent[self._number] = done
        pages: list[tuple[int, int]] = []
        content: list[bytes] = []
        places = []
        for pairs, start, stop in slices:
            known = self._pages.get(id(pairs))
            if known is None:
                number = self._number * 10_000 + len(pages)
                known = self._pages[id(pairs)] = number, pairs
                pages.append((number, len(pairs.encoded)))
                content.append(pairs.encoded)
                self._remembered_bytes += len(pairs.encoded)
            places.append((known[0], start, stop))
        header = {"batch": self._number, "member": member, "pages": pages, "slices": places, "forget": self._forget()}
        self._write(pack(header, content))

    def _forget(self) -> list[int]:
        """Forget the oldest pages when there are too many or too large ones, and return their numbers."""
        numbers = []
        while len(self._pages) > _REMEMBERED or self._remembered_bytes > _REMEMBERED_BYTES:
            _, (number, pairs) = self._pages.popitem(last=False)
            self._remembered_bytes -= len(pairs.encoded)
            numbers.append(number)
        return numbers

    def hold(self) -> None:
        """Tell the process to use the product vectors that are in their folder now."""
        self._write(pack({"hold": True}))

    def give_up(self) -> bool:
        """Kill the process; always possible."""
        self._told_to_end = True
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self.end()
        return True

    def end(self) -> None:
        """Close the connection, upon which the process ends."""
        self._told_to_end = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: Any) -> None:
        """Keep the transport; called by asyncio."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Handle the message that the process is ready, and answers to batches; called by asyncio."""
        for header, content in self._inbox.take(data):
            if "replica" in header:
                self.pid, self.slots = int(header["replica"]), int(header["slots"])
                if not self.ready.done():
                    self.ready.set_result(None)
            else:
                done = self._sent.pop(int(header["batch"]))
                done(_answers(header["answers"], content), float(header["seconds"]))

    def connection_lost(self, error: Exception | None) -> None:
        """Report the end of the process, unless it was told to end; called by asyncio."""
        why = f"replica {self.pid} ended" if self.pid else "a replica ended before it was ready"
        if not self.ready.done():
            self.ready.set_exception(TournamentError(f"{why}; is there enough memory?"))
            self.ready.exception()  # marks it as retrieved, in case nothing waits for it any more
        elif not self._told_to_end:
            self._ended(self, why)

    def _write(self, message: bytes) -> None:
        if self._transport is not None and self.alive:
            self._transport.write(message)


class _Talk(asyncio.Protocol):
    """Receives the one message that a process sends before it ends."""

    def __init__(self) -> None:
        self.said: asyncio.Future[dict[str, int]] = asyncio.get_running_loop().create_future()
        self._inbox = Inbox()

    def data_received(self, data: bytes) -> None:
        for header, _ in self._inbox.take(data):
            if not self.said.done():
                self.said.set_result(header["held"])

    def connection_lost(self, error: Exception | None) -> None:
        if not self.said.done():
            self.said.set_exception(
                TournamentError("the process that computed product vectors ended; its log says why")
            )
            self.said.exception()


def _answers(said: Sequence[int | list[str]], content: memoryview) -> list[Answer]:
    answers: list[Answer] = []
    start = 0
    for one in said:
        if isinstance(one, list):
            answers.append(_KINDS[one[0]](one[1]))
            continue
        stop = start + one * _BYTES
        answers.append(np.frombuffer(content[start:stop], dtype=np.float32).reshape(one, len(LABELS)))
        start = stop
    return answers
