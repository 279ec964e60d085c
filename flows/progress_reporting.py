"""Where the progress of stages goes: to a reporter, if one is set."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

Reporter = Callable[[str, float, str], None]  # name of what runs, share done in [0, 1], what is being done

_reporter: Reporter | None = None


@contextmanager
def to(reporter: Reporter) -> Iterator[None]:
    """Send progress to `reporter` while the block runs, from all threads; the reporter before it comes back afterwards.

    Args:
        reporter: Called with the name of a stage or candidate, the share of it that is done (0..1), and what it does.

    Yields:
        Nothing.

    Example:
        >>> with to(lambda name, share, doing: print(name, share, doing)):
        ...     report_progress("load", 0.5, "reads the products")
        load 0.5 reads the products
    """
    global _reporter
    _reporter, before = reporter, _reporter
    try:
        yield
    finally:
        _reporter = before


def current() -> Reporter | None:
    """Return the reporter that is set, None when there is none."""
    return _reporter


def report_progress(name: str, share: float, doing: str = "") -> None:
    """Send progress to the reporter, if one is set.

    Args:
        name: Name of a stage or candidate.
        share: Share of it that is done, 0..1.
        doing: What it does now.
    """
    if _reporter is not None:
        _reporter(name, share, doing)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Report the begin of a stage before the block, and its end after it unless the block raises; Prefect's log too.

    Args:
        name: Name of the stage.

    Yields:
        Nothing.
    """
    started = time.monotonic()
    report_progress(name, 0.0)
    tell_prefect(f"{name}: begins")
    yield
    report_progress(name, 1.0, "done")
    tell_prefect(f"{name}: done after {time.monotonic() - started:.1f} s")


def tell_prefect(words: str) -> None:
    """Write a line into the log of the flow or task run that this is part of; nothing outside of one."""
    with suppress(MissingContextError):
        get_run_logger().info(words)
