"""The terminal table and the Markdown: complete, on one screen, and safe from markup and escape codes in names."""

import io
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from esci_tournament.tasks.report.summary import Metrics
from esci_tournament.tasks.report.table import as_markdown, render_table


def printed(summary, width: int, colour: bool = False) -> str:
    console = Console(
        file=io.StringIO(), width=width, force_terminal=colour, color_system="standard" if colour else None
    )
    render_table(summary, console)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_table_fits_one_screen_and_the_width(width, summary):
    lines = printed(summary, width).splitlines()
    assert len(lines) <= 36
    assert max(map(len, lines)) <= width
    row = next(line for line in lines if line.startswith("ensemble"))
    assert row.split()[:5] == ["ensemble", "champion", "0.682", "0.563", "0.660"]


def test_table_tells_verdict_members_locales_budget_and_where_things_are(summary):
    text = printed(summary, 120)
    for expected in (
        "Verdict: Promote.",
        "minilm-l6 v3",
        "minilm-l3 v1 failed: epoch 2",
        "us 0.571, es 0.540, jp 0.521",
        "637 MiB of 800 MiB (80 %)",
        "MLflow run: http://127.0.0.1:5000/#/experiments/1/runs/abc",
    ):
        assert expected in text


def test_table_names_the_checks_that_did_not_pass(build_summary):
    checks = [{"name": "gain", "passed": False, "value": -0.1, "threshold": 0.0, "sentence": "it got worse"}]
    verdict = {"outcome": "refuse", "reason": "no gain", "checks": checks}
    assert "not passed: gain: it got worse" in printed(build_summary(verdict=verdict, promoted=False, decision={}), 120)


def test_table_of_a_sparse_summary_says_what_is_missing(sparse_summary):
    text = printed(sparse_summary, 80)
    assert "us 0.540, es not measured, jp no test pairs" in text
    assert "Verdict: Not evaluable." in text


def test_long_addresses_are_not_wrapped(build_summary):
    address = "/" + "long-folder/" * 20 + "report.html"
    assert f"Report: {address}" in printed(build_summary(links={"Report": address}), 80).splitlines()


def test_names_are_neither_markup_nor_escape_codes(build_summary):
    models = build_summary().models
    models[0] = replace(models[0], name="[red]x[/red]\x1b[2J")
    text = printed(build_summary(models=models), 160)
    assert "[red]x[/red] [2J v3" in text
    assert "\x1b" not in text


def test_best_value_is_bold_in_the_terminal(build_summary):
    models = build_summary().models
    models[1] = replace(models[1], test=Metrics(accuracy=0.5, macro_f1=0.9, weighted_f1=0.5))
    text = printed(build_summary(models=models), 120, colour=True)
    assert re.search(r"\x1b\[1m *0\.900", text)
    assert not re.search(r"\x1b\[1m *0\.563", text)


def cells(line: str) -> list[str]:
    return re.split(r"(?<!\\)\|", line)[1:-1]


def tables(markdown: str) -> list[list[str]]:
    return [block.split("\n") for block in markdown.split("\n\n") if block.startswith("|")]


def test_markdown_has_models_changes_checks_and_locales(summary):
    models, changes, checks, locales = tables(as_markdown(summary))
    assert [cell.strip() for cell in cells(models[2])][3:6] == ["**0.682**", "**0.563**", "**0.660**"]
    assert (len(models), len(changes), len(checks), len(locales)) == (2 + 7, 2 + 3, 2 + 3, 2 + 3)


def test_markdown_of_a_sparse_summary_leaves_out_what_is_missing(sparse_summary):
    models, changes, locales = tables(as_markdown(sparse_summary))
    assert (len(models), len(changes), len(locales)) == (2 + 3, 2 + 3, 2 + 3)


@settings(max_examples=50)
@given(name=st.text(max_size=40))
def test_no_name_breaks_a_markdown_table(name):
    from esci_tournament.tasks.report.markdown import grid

    lines = grid(["model", "value"], [[name, "1"], ["other", name]], "lr").split("\n")
    assert len(lines) == 4
    # A pipe counts unless an odd number of backslashes stands before it.
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines} == {3}
