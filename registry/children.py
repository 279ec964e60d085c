"""End child processes when their parent ends, also when the parent is killed by SIGKILL.

One mechanism: the parent holds one end of a pipe or a socket, and the child waits for that end to be closed, which the
kernel does whenever the parent ends. It needs no polling, compares no process ids (which are used again), notices a
parent that is gone before the child looks, works on Linux and macOS, and passes on: a child that ends closes what its
own children wait for. Linux's PR_SET_PDEATHSIG would not do: its signal comes when the *thread* that started the child
ends, and other systems have nothing like it.

    a module of ours                    start_child(command), and end_with_parent() first thing in the child
    a forked process with a socket      end_when_closed(socket) in the child
    a program that is not ours          start_group(command): all that it starts ends too
    a process that a library starts     end_too(pid)

The last two run this file as a program beside what they end, so it imports nothing but the standard library.
"""

from __future__ import annotations

import os
import runpy
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

EXIT_CODE = 3  # of a child that ended because its parent did
GRACE_S = 10.0  # between SIGTERM and SIGKILL of a group
# By these somebody else ends a process: the kernel when memory is short, an operator, a machine that goes down.
OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
_GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL
_held: weakref.WeakKeyDictionary[subprocess.Popen[Any], weakref.finalize[Any, Any]] = weakref.WeakKeyDictionary()


def start_child(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a program that calls :func:`end_with_parent`.

    Args:
        command: The program and its arguments.
        options: Options of :class:`subprocess.Popen`, without `stdin`: that is the pipe which the child waits on.

    Returns:
        The process. The pipe stays open until this object is garbage-collected or this process ends.
    """
    its, ours = os.pipe()
    try:
        process = subprocess.Popen(command, stdin=its, **options)
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(its)
    closing = weakref.finalize(process, os.close, ours)
    closing.atexit = False  # at the end of this process the kernel closes it
    _held[process] = closing
    return process


def start_group(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a program that is not ours in a process group of its own, which ends with this process.

    The group gets SIGTERM, and SIGKILL ten seconds later. What the program leaves behind in its group is ended as well.

    Args:
        command: The program and its arguments; its standard input is empty.
        options: Options of :class:`subprocess.Popen`, without `stdin` and `start_new_session`.

    Returns:
        The process that leads the group. It ends when the command does, and writes its exit code or signal to standard
        error.
    """
    return start_child([*_PROGRAM, "run", *command], start_new_session=True, **options)


def end_too(pid: int) -> None:
    """Send SIGTERM to a process that a library has started when this process ends.

    Args:
        pid: Its process id.
    """
    silent = subprocess.DEVNULL
    # In a session of its own, so that a key pressed in the terminal does not end it first
    start_child([*_PROGRAM, "end", str(pid)], stdout=silent, stderr=silent, start_new_session=True)


def end_with_parent() -> None:
    """End this process at once when the one that started it with :func:`start_child` is gone.

    It exits with `EXIT_CODE`; when it leads a process group, the whole group gets SIGKILL instead. Standard input is
    empty from now on.
    """
    end_when_closed(os.dup(0))
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)


def end_when_closed(descriptor: int) -> None:
    """End this process at once when the other side of a pipe or socket is closed, whatever is being computed.

    Args:
        descriptor: File descriptor of the pipe or socket. Data that comes through it is left unread.
    """
    threading.Thread(target=_end_after, args=(descriptor, _end), daemon=True, name="end with the parent").start()


def _end_after(descriptor: int, end: Callable[[], None]) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLHUP)
    while not any(event & _GONE for _, event in poll.poll()):
        time.sleep(0.1)  # macOS wakes up for data too
    end()


def _end() -> None:
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(EXIT_CODE)


def _let_go() -> None:
    """Close a forked process's copies of what its parent's children wait for."""
    for closing in list(_held.values()):
        closing()


os.register_at_fork(after_in_child=_let_go)


# As a program. -I: the folder of this file holds modules with names of the standard library; -S: it starts at once.
_PROGRAM = (sys.executable, "-IS", __file__)


def _run(command: Sequence[str]) -> None:
    # The group's signals are for the command; a handler, unlike SIG_IGN, is not handed on to it.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_end_after, args=(0, _end_group), daemon=True).start()
    code = child.wait()
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    with suppress(OSError):  # the log's disk is full
        sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} ended by {how}: {' '.join(command[1:4])}\n")
        sys.stderr.flush()
    os.killpg(0, signal.SIGKILL)  # what the command has left behind would keep its port


def _end_group() -> None:
    os.killpg(0, signal.SIGTERM)
    time.sleep(GRACE_S)
    os.killpg(0, signal.SIGKILL)


def _end_process(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGTERM)


if __name__ == "__main__":
    runpy.run_path(os.path.join(os.path.dirname(os.path.abspath(__file__)), "secrecy.py"))["hide_process"]()
    if sys.argv[1] == "run":
        _run(sys.argv[2:])
    else:
        _end_after(0, lambda: _end_process(int(sys.argv[2])))
