"""Progress bars on standard error, for everything that lasts; plain lines when nobody watches a terminal."""

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
    """One bar a running stage, safe to use from several threads."""

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
        """Show the bars."""
        if self.console.is_terminal:
            self._bars.start()

    def stop(self) -> None:
        """Leave the bars as they stand."""
        if self.console.is_terminal:
            self._bars.stop()

    def report(self, name: str, share: float, doing: str) -> None:
        """Tell that `name` is at `share` of its work; 1.0 ends it."""
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
    """Show bars while something lasts; yields the function (name, share, doing) that moves them.

    Args:
        console: Where they are shown; one that is no terminal gets lines instead.
    """
    board = Board(console)
    board.start()
    try:
        yield board.report
    finally:
        board.stop()


@contextmanager
def bar(console: Console, name: str) -> Iterator[Callable[[float, str], None]]:
    """Show one bar; yields the function (share, doing) that moves it."""
    with bars(console) as report:
        yield lambda share, doing: report(name, share, doing)
