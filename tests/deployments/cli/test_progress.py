"""Progress of what lasts: bars on a terminal, and a line now and then where nobody watches."""

from __future__ import annotations

import io
import re
import threading
import time
from contextlib import suppress

import pytest
from rich.console import Console

from esci_tournament.deployments.cli.progress import LINE_EVERY_S, WHOLE, Whole, bar, bars, estimated


def console(terminal: bool = False) -> tuple[Console, io.StringIO]:
    written = io.StringIO()
    return Console(file=written, width=120, force_terminal=terminal, force_interactive=terminal), written


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_there_is_a_line_now_and_then_and_one_at_the_end(clock: list[float]) -> None:
    screen, written = console()
    with bars(screen) as report:
        for share in (0.0, 0.1, 0.2):
            report("sage", share, f"epoch {share:g}")
            clock[0] += 1
        clock[0] += LINE_EVERY_S
        report("sage", 0.5, "half")
        clock[0] += 1
        report("sage", 1.0, "done")
    lines = [re.sub(r" +", " ", line) for line in written.getvalue().splitlines()]
    assert lines == ["sage 0% 0.0 s epoch 0", "sage 50% 18.0 s half", "sage 100% 19.0 s done"]


def test_each_that_runs_has_lines_of_its_own(clock: list[float]) -> None:
    screen, written = console()
    with bars(screen) as report:
        report("sage", 0.1, "")
        report("gcn", 0.2, "")
    assert [line.split()[0] for line in written.getvalue().splitlines()] == ["sage", "gcn"]


def test_on_a_terminal_there_is_one_bar_for_each_whoever_reports() -> None:
    screen, written = console(terminal=True)
    names = [f"model-{number}" for number in range(8)]
    with bars(screen) as report:
        threads = [
            threading.Thread(target=lambda name=name: [report(name, share / 5, "works") for share in range(7)])
            for name in names
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    end = written.getvalue().rpartition("model-0")[2]
    assert all(f"{name} " in end for name in names[1:])
    assert len(re.findall("100%", end)) == len(names)


def test_one_bar_is_moved_by_its_share_alone() -> None:
    screen, written = console()
    with bar(screen, "download") as move:
        move(1.0, "12 MB")
    assert written.getvalue().split() == ["download", "100%", "0.0", "s", "12", "MB"]


def test_bars_stop_when_what_lasts_fails() -> None:
    screen, written = console(terminal=True)
    with suppress(RuntimeError), bars(screen) as report:
        report("sage", 0.5, "")
        raise RuntimeError("no memory")
    assert written.getvalue().endswith("\x1b[?25h")  # the cursor is shown again


def test_time_left_gives_way_from_the_expectation_to_the_pace(clock: list[float]) -> None:
    whole = Whole(100.0, (0.6, 1.0))
    assert whole.left_s == 100.0
    for name in ("a/1", "b/1"):
        whole.hear(name, 1.0, "trained and scored")
    share = whole.share
    assert 0.3 < share < 0.6, "stages after training are left"
    clock[0] += share * 300  # three times as long as expected
    assert (1 - share) * 100 < whole.left_s < (1 - share) * 300
    whole.next_part()
    assert whole.share == 0.6
    whole.hear("c/1", 0.0, "waits")
    whole.hear("a/1", 1.0, "scores are in the store")
    assert whole.share == 0.6, "what need not be trained says nothing of the others"


def test_the_whole_has_a_line_of_its_own_that_ends_with_it(clock: list[float]) -> None:
    screen, written = console()
    whole = Whole(100.0, (1.0,))
    with estimated(bars(screen), whole) as report:
        report("load", 1.0, "done")
        clock[0] += LINE_EVERY_S
        report("sage/1", 0.5, "half")
    lines = [line for line in written.getvalue().splitlines() if line.startswith(WHOLE)]
    assert [line.split("  ")[-1] for line in lines] == ["about 2 minutes left", "about 50 seconds left"]
