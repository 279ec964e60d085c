"""The processes that members compute in: a keeper loads a champion's members once, and forks its replicas.

    zygote                has imported what all of them need; one for each scorer
      keeper              has loaded the members of one champion; computes nothing
        replica, ...      computes batches, one process each; shares the weights with the keeper
        patient replica   computes what no request waits for, at a low priority

So loading, forking and computing do not slow down the process that answers requests, and a replica that dies or hangs
is replaced in milliseconds. CUDA cannot be forked: on a GPU each replica loads the members itself, and where a library
has touched CUDA when it was imported, which a trial shows, a replica is a fresh process that imports everything anew.

Each of these processes ends when the scorer's end of its socket is closed, also when the scorer is killed.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import orjson

from esci_tournament.deployments.scorer.compute.loading import Job, load_members
from esci_tournament.deployments.scorer.compute.pairs import NotAnswered, Pairs
from esci_tournament.deployments.scorer.compute.replica import Answer, Judge
from esci_tournament.deployments.scorer.compute.wire import Header, pack, receive, receive_with
from esci_tournament.deployments.scorer.memory import Trimmer
from esci_tournament.registry.children import end_when_closed
from esci_tournament.registry.errors import TournamentError
from esci_tournament.registry.processes import python_module
from esci_tournament.tasks.data.store import read_frame
from esci_tournament.tasks.families.protocol import Candidate

_ANEW = "anew"
_PATIENCE = 10  # nice value of processes that no request waits for
_SWITCH_SECONDS = 0.0005  # between threads: a message must not wait for the model's Python


def fork_on_request(control: socket.socket, work: Callable[[Header, socket.socket], None]) -> None:
    """Fork a child for each message that comes with a socket, until the other side is gone.

    Args:
        control: socket that messages come from; it is closed in the children.
        work: called in the child with the message's header and the socket; the child ends when it returns.
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
    """Reap children that have ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _live(work: Callable[[], None]) -> NoReturn:
    """Do the work of a forked process, and end it without running the exit handlers of its parent."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal is handled by the scorer
        work()
        code = 0
    except BaseException:
        logging.getLogger("scorer").exception("a process of the scorer fails")
    finally:
        with suppress(Exception):
            sys.stderr.flush()
        os._exit(code)


def begin(header: Header, connection: socket.socket) -> None:
    """Do in a child of the zygote what the scorer asks for: keep a champion, or refresh an ensemble.

    Args:
        header: the facts of a :class:`Job`; or the keys refresh (paths of ensemble, data and target) and device.
        connection: socket to the scorer.
    """
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
    """Load a champion's members, report that, and fork replicas until the scorer is gone.

    Its first message has the keys kept (candidate ids) and devices; or failed, with the reason.

    Args:
        facts: the :class:`Job` as `to_json` returns it.
        control: socket to the scorer. Each message on it has the keys as ("replica", "patient" or "embedder") and
            number, and comes with the socket of the process to be forked.
    """
    job = Job.from_json(facts)
    try:
        devices, forks = apart(lambda: _devices(job.device))
        shared = _load_shared(job) if devices == ["cpu"] and forks else {}
    except Exception as error:
        reason = str(error) if isinstance(error, TournamentError) else f"{type(error).__name__}: {error}"
        control.sendall(pack({"failed": reason}))
        return
    gc.collect()
    gc.freeze()  # a collection would write to, and so copy, memory that the replicas share
    control.sendall(pack({"kept": list(job.folders), "devices": devices}))

    def work(header: Header, connection: socket.socket) -> None:
        asked = {**header, "device": devices[int(header["number"]) % len(devices)]}
        if header["as"] != "replica":
            os.nice(_PATIENCE)
        if forks:
            become(job, shared, asked, connection)
        else:
            _start_anew(job, asked, connection)

    fork_on_request(control, work)


def become(job: Job, shared: Mapping[str, Candidate], asked: Header, connection: socket.socket) -> None:
    """Do the work of a replica, or of the process that computes product vectors, until the scorer is gone.

    Args:
        job: which members, and how they compute.
        shared: members that are loaded already.
        asked: the keys as ("replica", "patient" or "embedder") and device.
        connection: socket to the scorer.
    """
    end_when_closed(connection.fileno())
    rest = job.forkable() if asked["as"] == "embedder" else list(job.folders)
    members = {**shared, **load_members(job, [name for name in rest if name not in shared], asked["device"])}
    if asked["as"] == "embedder":
        connection.sendall(pack({"held": embed_members(job, members)}))
    else:
        _serve(job, members, asked["device"], connection)


def _start_anew(job: Job, asked: Header, connection: socket.socket) -> NoReturn:
    """Replace this process by a fresh one that does what :func:`become` does."""
    with tempfile.TemporaryFile() as told:  # too long for a command line: it has the counts of many products
        told.write(orjson.dumps([job.to_json(), asked]))
        told.seek(0)
        for one in (told.fileno(), connection.fileno()):
            os.set_inheritable(one, True)
        command = python_module(__spec__.name, _ANEW, str(told.fileno()), str(connection.fileno()))
        os.execv(command[0], command)


def _devices(name: str) -> tuple[list[str], bool]:
    """Return the devices that replicas are spread over, and whether a forked process can compute on them.

    Call it in a forked process: CUDA cannot be forked once it is initialised. A library may have done that when it was
    imported; only a trial shows it.
    """
    import torch

    from esci_tournament.tasks.candidates.device import resolve_device

    device = resolve_device(name)
    if device.type != "cuda":
        return [str(device)], True
    devices = [str(device)] if ":" in name else [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    try:
        torch.zeros(1, device=device)
    except RuntimeError as error:
        logging.getLogger("scorer").info("replicas start as fresh processes, because CUDA cannot be forked: %s", error)
        return devices, False
    return devices, True


def _load_shared(job: Job) -> dict[str, Candidate]:
    """Repair what was computed ahead, and load the members that replicas share, both at a low priority."""
    from esci_tournament.deployments.scorer.compute.embeddings import make_whole

    apart(lambda: make_whole(job.ensemble))
    names = job.forkable()
    found: dict[str, Candidate] = patiently(lambda: load_members(job, names, "cpu"))
    return found


def apart(work: Callable[[], Any]) -> Any:
    """Call a function in a forked process of low priority, and wait for it.

    A process that forks must not have computed with torch, nor have initialised CUDA; here that happens elsewhere.

    Args:
        work: called without arguments; its result must be JSON-able.

    Returns:
        The result, as it comes out of JSON.

    Raises:
        TournamentError: if it raises an error, with that error's message, or its process ends before.
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
    """Call a function in a thread of low priority, wait for it, and return its result.

    Args:
        work: called without arguments; what it raises is raised here.

    Returns:
        Its result.
    """

    def run() -> Any:
        with suppress(OSError, AttributeError):  # where threads have no priority of their own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _PATIENCE)
        return work()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run).result()


def embed_members(job: Job, members: Mapping[str, Candidate]) -> dict[str, int]:
    """Compute the members' product vectors in the folder where replicas look for them.

    Args:
        job: names the catalogue and the folder.
        members: candidate id -> model.

    Returns:
        Candidate id -> number of products whose vectors it uses; empty without a catalogue.
    """
    from esci_tournament.deployments.scorer.compute.embeddings import embed

    products = job.products
    if products is None:
        return {}
    frame = partial(read_frame, products)
    return embed(members, frame, job.vectors, job.data_version, job.precomputed, job.retrieved)


def _serve(job: Job, members: dict[str, Candidate], device: str, connection: socket.socket) -> None:
    """Report that the replica is ready, and answer batches until the scorer is gone."""
    import torch

    sys.setswitchinterval(_SWITCH_SECONDS)
    torch.set_num_threads(job.threads)
    slots = job.slots or (1 if device == "cpu" else max(len(members), 1))
    hold(job, members)
    connection.sendall(pack({"replica": os.getpid(), "slots": slots}))
    pages: dict[int, Pairs] = {}  # that the scorer relies on; it says which ones to forget
    trimmer = Trimmer()
    sending, judge = threading.Lock(), Judge()

    def compute(header: Header, slices: list[Pairs]) -> None:
        begun = time.monotonic()
        member = members[header["member"]]
        answers = judge.answers(header["member"], member, slices, job.most_pairs)
        said = [_said(answer) for answer in answers]
        content = [np.ascontiguousarray(one).data.cast("B") for one in answers if isinstance(one, np.ndarray)]
        facts = {"batch": header["batch"], "seconds": time.monotonic() - begun, "answers": said}
        with sending, suppress(ConnectionError):
            connection.sendall(pack(facts, content))

    pool = ThreadPoolExecutor(slots, "member", torch.set_num_threads, (job.threads,))
    while (message := receive(connection)) is not None:
        header, content = message
        if "hold" in header:
            hold(job, members)
            continue
        _remember(pages, header["pages"], content)
        slices = [pages[page].between(start, stop) for page, start, stop in header["slices"]]
        for page in header["forget"]:
            del pages[page]
        size = len(content)
        if slots == 1:
            compute(header, slices)
        else:
            pool.submit(compute, header, slices)
        del message, content, slices  # they hold pages while the next message is waited for
        trimmer.after(size)


def _said(answer: Answer) -> int | list[str]:
    """Return what a message says of an answer: its pairs, or the kind of failure and the reason."""
    return [type(answer).__name__, str(answer)] if isinstance(answer, NotAnswered) else len(answer)


def hold(job: Job, members: Mapping[str, Candidate]) -> None:
    """Load the product vectors that are in their folder, for members that have none yet.

    Args:
        job: names the folder.
        members: candidate id -> model; changed in place.
    """
    from esci_tournament.deployments.scorer.compute.embeddings import hold_vectors

    without = {name: member for name, member in members.items() if not member.products_ahead}
    hold_vectors(without, job.vectors, job.data_version, job.precomputed)


def _remember(pages: dict[int, Pairs], arrived: Iterable[tuple[int, int]], content: memoryview) -> None:
    start = 0
    for page, size in arrived:
        pages[page] = Pairs.decoded(content[start : start + size])
        start += size


def main(*arguments: str) -> int:
    """Run the zygote: import what every process needs, and fork keepers until the scorer is gone.

    Args:
        arguments: file descriptor of the socket to the scorer, as text; or what :func:`_start_anew` passes.

    Returns:
        The exit code, 0.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("scorer").setLevel(logging.INFO)
    if arguments[0] == _ANEW:
        with os.fdopen(int(arguments[1]), "rb") as told:
            job, asked = orjson.loads(told.read())
        connection = socket.socket(fileno=int(arguments[2]))
        _live(lambda: become(Job.from_json(job), {}, asked, connection))
    control = socket.socket(fileno=int(arguments[0]))
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
    torch.set_num_threads(1)  # a pool of threads does not survive a fork


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
