"""Progress bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

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
