"""Progress bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

WHOLE = "all of it"
LINE_EVERY_S = 15.0  # without a terminal, one line a task at most this often


class Board:
    """One bar for each stage that runs; safe to use from several threads.

    Args:
        console: where the bars are drawn. One that is no terminal gets a line for each stage at most every
            :data:`LINE_EVERY_S` seconds instead.
    """

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self.console = console
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<34}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[doing]}", style="dim"),
            console=self.console,
        )
        self._lock = threading.Lock()
        self._tasks: dict[str, int] = {}
        self._told: dict[str, float] = {}
        self._started: dict[str, float] = {}

    def start(self) -> None:
        """Begin to draw the bars."""
        if self.console.is_terminal:
            self._bars.start()

    def stop(self) -> None:
        """Stop drawing; the bars stay on the screen as they are."""
        if self.console.is_terminal:
            self._bars.stop()

    def report(self, name: str, share: float, doing: str) -> None:
        """Show how far a stage is.

        Args:
            name: name of the stage; a new one gets a new bar.
            share: share done in [0, 1].
            doing: a word on what is being done.
        """
        with self._lock:
            now = time.monotonic()
            self._started.setdefault(name, now)
            if self.console.is_terminal:
                self._report_bar(name, share, doing)
            elif share >= 1 or now - self._told.get(name, 0.0) >= LINE_EVERY_S:
                self._told[name] = now
                self.console.print(f"{name:<34} {share:>4.0%} {now - self._started[name]:6.1f} s  {doing}")

    def _report_bar(self, name: str, share: float, doing: str) -> None:
        from rich.progress import TaskID

        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=1.0, doing=doing)
        self._bars.update(TaskID(self._tasks[name]), completed=min(share, 1.0), doing=doing)


class Whole:
    """How far several tournaments are together, and how long they will take; safe to use from several threads.

    Args:
        expected_s: Seconds that all of it is expected to take.
        ends: Share of all of it that is done when each part ends, the last one 1.
    """

    def __init__(self, expected_s: float, ends: Sequence[float]) -> None:
        self._expected_s, self._ends = expected_s, tuple(ends)
        self._started, self._part = time.monotonic(), 0
        self._shares: dict[str, float] = {}
        self._stored: set[str] = set()
        self._lock = threading.Lock()

    def hear(self, name: str, share: float, doing: str) -> None:
        """Take in what a stage of the tournament that runs reports, as :meth:`Board.report` does."""
        from esci_tournament.tasks.report.progress import STORED

        with self._lock:
            self._shares[name] = max(share, self._shares.get(name, 0.0))
            if doing == STORED:
                self._stored.add(name)

    def next_part(self) -> None:
        """Say that a part has ended and the next one begins."""
        with self._lock:
            self._part += 1
            self._shares, self._stored = {}, set()

    @property
    def share(self) -> float:
        """Share of all of it that is done, in [0, 1]."""
        from esci_tournament.tasks.report.progress import overall

        with self._lock:
            start, end = ((0.0, *self._ends)[self._part], self._ends[self._part])
            return start + (end - start) * overall(self._shares, self._stored)

    @property
    def left_s(self) -> float:
        """Seconds that are left: the expectation gives way to the pace so far, the more is done."""
        left = 1.0 - self.share
        return left * (left * self._expected_s + time.monotonic() - self._started)

    def words(self) -> str:
        """Return in words how much time is left."""
        return f"about {minutes(self.left_s)} left"


def minutes(seconds: float) -> str:
    """Return a length of time as people say it: in minutes, below one in steps of ten seconds.

    Example:
        >>> minutes(170), minutes(62), minutes(31), minutes(0)
        ('3 minutes', '1 minute', '40 seconds', '10 seconds')
    """
    if seconds <= 50:
        return f"{max(10, math.ceil(seconds / 10) * 10)} seconds"
    whole = max(1, round(seconds / 60))
    return f"{whole} minute{'s' if whole > 1 else ''}"


@contextmanager
def estimated(
    shown: AbstractContextManager[Callable[[str, float, str], None]], whole: Whole
) -> Iterator[Callable[[str, float, str], None]]:
    """Show the progress of a tournament's stages and, beside them, how much time is left of the whole.

    Args:
        shown: Where it is shown, as :func:`bars` returns it.
        whole: What the tournament is a part of.

    Yields:
        The function that :func:`bars` yields.
    """
    with shown as report:

        def heard(name: str, share: float, doing: str) -> None:
            report(name, share, doing)
            whole.hear(name, share, doing)
            report(WHOLE, min(whole.share, 0.99), whole.words())

        yield heard


@contextmanager
def bars(console: Console) -> Iterator[Callable[[str, float, str], None]]:
    """Show the progress of several stages while the block runs.

    Args:
        console: where it is shown; one that is no terminal gets lines instead of bars.

    Yields:
        A function that is called with the name of a stage, the share done in [0, 1] and a word on what is being done.
    """
    board = Board(console)
    board.start()
    try:
        yield board.report
    finally:
        board.stop()


@contextmanager
def bar(console: Console, name: str) -> Iterator[Callable[[float, str], None]]:
    """Show the progress of one stage while the block runs.

    Args:
        console: where it is shown; one that is no terminal gets lines instead of a bar.
        name: name of the stage.

    Yields:
        A function that is called with the share done in [0, 1] and a word on what is being done.
    """
    with bars(console) as report:
        yield lambda share, doing: report(name, share, doing)
