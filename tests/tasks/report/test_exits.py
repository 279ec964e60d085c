from __future__ import annotations

import io

import pytest
from rich.console import Console

from esci_tournament.tasks.ensemble.early_exit import EarlyExit, Level, never, too_few
from esci_tournament.tasks.report import exits
from esci_tournament.tasks.report.page import render
from esci_tournament.tasks.report.summary import Summary
from esci_tournament.tasks.report.table import as_markdown, render_table

LEVEL = Level(0.005, (2.25, None), 0.0021, 0.0043, 0.3141, 0.4499, 0.0012, (0.4, 0.1, 0.5))
OFF = never(("a/1", "b<i>/1", "c/1"), 0.001)
RULE = EarlyExit(("a/1", "b<i>/1", "c/1"), LEVEL, (OFF, LEVEL), "macro_f1", 3821, 204)


@pytest.fixture
def summary(build_summary) -> Summary:
    return build_summary(early_exit=RULE.to_json())


def test_what_is_saved_bounded_and_lost_stands_everywhere(summary: Summary) -> None:
    terminal = io.StringIO()
    render_table(summary, Console(file=terminal, width=400))
    for told in (exits.sentence(summary), terminal.getvalue(), render(summary), as_markdown(summary)):
        for fact in ("31.4 %", "45.0 %", "0.43 %", "0.50 %", "0.21 %", "0.0012", "3,821 pairs of 204 queries"):
            assert fact in told


def test_every_risk_has_a_row_and_names_are_escaped(summary: Summary) -> None:
    off, row = exits.rows(summary)
    assert off == ["0.10 %", "off", "–", "–", "–", "–"]
    assert row == ["0.50 %", "0.43 %", "0.21 %", "31.4 %", "45.0 %", "0.0012"]
    page = render(Summary.from_json(summary.to_json()))
    assert "Labels that may change" in page
    assert "b&lt;i&gt;/1" in page


def test_why_it_is_off_is_said(build_summary) -> None:
    rule = EarlyExit(("a/1", "b/1"), never(("a/1", "b/1")), reason=too_few(0.005, 1234, 0.021, 5678))
    summary = build_summary(early_exit=rule.to_json())
    assert exits.sentence(summary) == (
        "Early exit is off: 1,234 queries, the largest with 2.1 % of the pairs, cannot show that at most 0.5 % of "
        "labels change: that takes about 5,678 such queries, or more if any label changes."
    )
    assert "</abbr> is off: 1,234 queries" in render(summary)


def test_of_a_challenger_that_will_not_serve_nothing_is_said(build_summary) -> None:
    assert exits.sentence(build_summary()) == ""
    assert "Early exit" not in render(build_summary())
