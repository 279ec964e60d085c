"""Where the progress of stages goes: to whoever listens, else to Prefect's log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Reporter = Callable[[str, float, str], None]  # name of what runs, share done in [0, 1], what is being done

_reporter: Reporter | None = None


@contextmanager
def to(reporter: Reporter) -> Iterator[None]:
    """Send progress to `reporter` while the block runs, from whichever thread."""
    global _reporter
    _reporter, before = reporter, _reporter
    try:
        yield
    finally:
        _reporter = before


def is_heard() -> bool:
    """Return whether anybody listens."""
    return _reporter is not None


def report_progress(name: str, share: float, doing: str = "") -> None:
    """Report progress."""
    if _reporter is not None:
        _reporter(name, share, doing)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Report the begin and the end of a stage."""
    report_progress(name, 0.0)
    yield
    report_progress(name, 1.0, "done")
