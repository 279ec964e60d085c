"""The processes that members compute in: a keeper loads a champion's members once, and forks its replicas.

    zygote                imported what all of them need; one a scorer
      keeper              loaded the members of one champion; computes nothing
        replica, ...      computes, a process each; the weights are shared with the keeper
        patient replica   computes what nobody waits for, and gives way to everything else

Loading, forking and computing so stay away from the process that answers requests. A replica that dies or hangs is
replaced in milliseconds. On a GPU nothing can be forked: there each replica loads the members itself.

Each of them ends when the scorer's end of its socket is closed, be it by a kill.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from esci_tournament.deployments.scorer.compute.loading import Job, load_members
from esci_tournament.deployments.scorer.compute.pairs import NotAnswered, Pairs
from esci_tournament.deployments.scorer.compute.replica import answers_of
from esci_tournament.deployments.scorer.compute.wire import Header, pack, receive, receive_with
from esci_tournament.registry.children import end_when_closed
from esci_tournament.registry.errors import TournamentError
from esci_tournament.tasks.data.store import read_frame
from esci_tournament.tasks.families.protocol import Candidate

_PATIENCE = 10  # nice value of what nobody waits for
_REMEMBERED = 128  # pages that a replica keeps; whoever asks relies on half of them
_SWITCH_SECONDS = 0.0005  # between threads: a message must not wait for the model's Python


def fork_on_request(control: socket.socket, work: Callable[[Header, socket.socket], None]) -> None:
    """Fork a child for each message that comes with a socket, until the other side is gone.

    Args:
        control: where messages come from; children do not keep it.
        work: what a child does, with the message and the socket; the child ends with it.
    """
    signal.signal(signal.SIGCHLD, lambda *_: _bury())
    while (message := receive_with(control)) is not None:
        header, connection = message
        if connection is None:
            continue
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            control.close()
            _live(partial(work, header, connection))
        connection.close()


def _bury() -> None:
    """Let go of children that have ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _live(work: Callable[[], None]) -> NoReturn:
    """Do the work of a forked process, and end it without what its parent had in mind for its own end."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a key pressed in the terminal is for the scorer
        work()
        code = 0
    except BaseException:
        logging.getLogger("scorer").exception("a process of the scorer fails")
    finally:
        with suppress(Exception):
            sys.stderr.flush()
        os._exit(code)


def begin(header: Header, connection: socket.socket) -> None:
    """Be what the scorer asks the zygote for: a keeper, or a process that refreshes an ensemble."""
    if "refresh" in header:
        ensemble, data, target = (Path(place) for place in header["refresh"])
        _tell(lambda: _refresh(ensemble, data, target, header["device"]), connection)
    else:
        keep(header, connection)


def _refresh(ensemble: Path, data: Path, target: Path, device: str) -> dict[str, int]:
    from esci_tournament.deployments.scorer.compute.embeddings import refreshed_copy
    from esci_tournament.tasks.candidates.device import resolve_device

    return refreshed_copy(ensemble, data, target, str(resolve_device(device)))


def keep(facts: Header, control: socket.socket) -> None:
    """Load a champion's members, say so, and fork replicas until the scorer is gone.

    Args:
        facts: of the :class:`Job`. control: each message {"as": "replica", "patient" or "embedder", "number": n} comes
            with the socket of a process to be forked.
    """
    job = Job.from_json(facts)
    try:
        devices = apart(lambda: _devices(job.device))
        shared = _load_shared(job) if devices == ["cpu"] else {}
    except Exception as error:
        reason = str(error) if isinstance(error, TournamentError) else f"{type(error).__name__}: {error}"
        control.sendall(pack({"failed": reason}))
        return
    gc.collect()
    gc.freeze()  # no collection touches, and so copies, what the replicas share
    control.sendall(pack({"kept": list(job.folders), "devices": devices}))

    def work(header: Header, connection: socket.socket) -> None:
        end_when_closed(connection.fileno())
        device = devices[int(header["number"]) % len(devices)]
        if header["as"] != "replica":
            os.nice(_PATIENCE)
        rest = job.forkable() if header["as"] == "embedder" else list(job.folders)
        members = shared | load_members(job, [name for name in rest if name not in shared], device)
        if header["as"] == "embedder":
            connection.sendall(pack({"held": embed_members(job, members)}))
        else:
            _serve(job, members, device, connection)

    fork_on_request(control, work)


def _devices(name: str) -> list[str]:
    """Return the devices that replicas may be spread over; asked in a process apart, because CUDA does not fork."""
    from esci_tournament.tasks.candidates.device import resolve_device

    device = resolve_device(name)
    if device.type != "cuda" or ":" in name:
        return [str(device)]
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]


def _load_shared(job: Job) -> dict[str, Candidate]:
    """Mend what was computed ahead, and load what replicas may share; both give way to everything else."""
    from esci_tournament.deployments.scorer.compute.embeddings import make_whole

    apart(lambda: make_whole(job.ensemble))
    names = job.forkable()
    found: dict[str, Candidate] = patiently(lambda: load_members(job, names, "cpu"))
    return found


def apart(work: Callable[[], Any]) -> Any:
    """Do something in a process of its own, wait for it, and return what it comes to, which must be JSON-able.

    Torch must not have computed, nor CUDA have been looked for, in a process that forks.

    Raises:
        TournamentError: with what it fails of.
    """
    ours, its = socket.socketpair()
    if not (child := os.fork()):
        ours.close()
        _live(lambda: _tell(work, its))
    its.close()
    with ours:
        said = receive(ours)
    os.waitpid(child, 0)
    if said is None:
        raise TournamentError("a process ended before it had done its work; is there enough memory?")
    if "failed" in said[0]:
        raise TournamentError(said[0]["failed"])
    return said[0]["came"]


def _tell(work: Callable[[], Any], connection: socket.socket) -> None:
    end_when_closed(connection.fileno())
    os.nice(_PATIENCE)
    try:
        message = pack({"came": work()})
    except Exception as error:
        message = pack(
            {"failed": str(error) if isinstance(error, TournamentError) else f"{type(error).__name__}: {error}"}
        )
    connection.sendall(message)


def patiently(work: Callable[[], Any]) -> Any:
    """Do something in a thread that gives way to everything else on the machine, and return what it comes to."""

    def run() -> Any:
        with suppress(OSError, AttributeError):  # where threads have no priority of their own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _PATIENCE)
        return work()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run).result()


def embed_members(job: Job, members: Mapping[str, Candidate]) -> dict[str, int]:
    """Compute the members' product vectors, where replicas find them; return member -> number of products."""
    from esci_tournament.deployments.scorer.compute.embeddings import embed

    products = job.products
    if products is None:
        return {}
    frame = partial(read_frame, products)
    return embed(members, frame, job.vectors, job.data_version, job.precomputed, job.retrieved)


def _serve(job: Job, members: dict[str, Candidate], device: str, connection: socket.socket) -> None:
    """Say that the replica is there, and answer batches until the scorer is gone."""
    import torch

    sys.setswitchinterval(_SWITCH_SECONDS)
    torch.set_num_threads(job.threads)
    slots = job.slots or (1 if device == "cpu" else max(len(members), 1))
    hold(job, members)
    connection.sendall(pack({"replica": os.getpid(), "slots": slots}))
    pages: OrderedDict[int, Pairs] = OrderedDict()
    sending = threading.Lock()

    def compute(header: Header, slices: list[Pairs]) -> None:
        begun = time.monotonic()
        answers = answers_of(members[header["member"]], slices, job.most_pairs)
        said = [str(answer) if isinstance(answer, NotAnswered) else len(answer) for answer in answers]
        content = [np.ascontiguousarray(one).data.cast("B") for one in answers if isinstance(one, np.ndarray)]
        reply = pack({"batch": header["batch"], "seconds": time.monotonic() - begun, "answers": said}, content)
        with sending, suppress(ConnectionError):
            connection.sendall(reply)

    pool = ThreadPoolExecutor(slots, "member", torch.set_num_threads, (job.threads,))
    while (message := receive(connection)) is not None:
        header, content = message
        if "hold" in header:
            hold(job, members)
            continue
        _remember(pages, header["pages"], content)
        slices = [pages[page].between(start, stop) for page, start, stop in header["slices"]]
        while len(pages) > _REMEMBERED:
            pages.popitem(last=False)
        if slots == 1:
            compute(header, slices)
        else:
            pool.submit(compute, header, slices)


def hold(job: Job, members: Mapping[str, Candidate]) -> None:
    """Have members that have none yet use the product vectors that are there."""
    from esci_tournament.deployments.scorer.compute.embeddings import hold_vectors

    without = {name: member for name, member in members.items() if not member.products_ahead}
    hold_vectors(without, job.vectors, job.data_version, job.precomputed)


def _remember(pages: OrderedDict[int, Pairs], arrived: Iterable[tuple[int, int]], content: memoryview) -> None:
    start = 0
    for page, size in arrived:
        pages[page] = Pairs.decoded(content[start : start + size])
        start += size


def main(descriptor: str) -> int:
    """Be the zygote: import what every process needs, and fork keepers until the scorer is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("scorer").setLevel(logging.INFO)
    control = socket.socket(fileno=int(descriptor))
    _import_everything()
    fork_on_request(control, begin)
    return 0


def _import_everything() -> None:
    """Import what loading members takes, of families whose models are loaded before a fork."""
    import torch

    from esci_tournament.registry.plugins import families
    from esci_tournament.tasks.families.loading import candidate_class

    import_module("esci_tournament.deployments.scorer.compute.embeddings")
    for family in families():
        with suppress(TournamentError):  # a plug-in that cannot be imported fails when its model is loaded
            found = candidate_class(family)
            if found.forkable:
                for module in found.imports:
                    import_module(module)
    torch.set_num_threads(1)  # a team of threads does not outlive a fork


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
