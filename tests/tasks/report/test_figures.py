"""The figures: valid, deterministic, complete, and absent if there is nothing to show."""

import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import matplotlib
import pytest

from esci_tournament.tasks.report.figures import FIGURES, budget_curve, confusion_matrix, save_all, utility_bars
from esci_tournament.tasks.report.page import render


def texts(svg: bytes) -> str:
    return " ".join(
        element.text or "" for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")
    )


@pytest.mark.parametrize("name", FIGURES)
def test_same_summary_same_bytes(name, summary):
    for kind in ("svg", "png"):
        assert FIGURES[name](summary, kind) == FIGURES[name](summary, kind)


@pytest.mark.parametrize("name", ["a$b$c", "$\\frac{", "<b>&amp;\"'", "靴\x00\x1b[31m", "]]>-->"])
def test_names_are_drawn_as_they_are_in_valid_xml(name, build_summary):
    models = [replace(model, name=name, version="") for model in build_summary().models]
    shown = name.replace("\x00\x1b", " ")
    for draw in (utility_bars, FIGURES["metric_comparison"]):
        assert shown in texts(draw(build_summary(models=models)))


def test_confusion_matrix_shows_row_shares_and_counts(build_summary):
    drawn = texts(confusion_matrix(build_summary(confusion=[[30, 10, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 5]])))
    assert "75.0 %" in drawn
    assert "30" in drawn.split()
    assert "nan" not in drawn


def test_budget_curve_with_one_axis_and_one_point(build_summary):
    selection = {"curve_memory": [[100.0, 0.5]], "budget": {"memory_mib": 120.0}, "used": {}}
    drawn = texts(budget_curve(build_summary(selection=selection)))
    assert "memory, MiB" in drawn
    assert "latency" not in drawn


def test_save_all_writes_whole_files_and_skips_what_has_nothing_to_show(summary, sparse_summary, tmp_path):
    written = save_all(summary, tmp_path / "full", ("svg", "png"))
    assert sorted(written) == sorted((tmp_path / "full").iterdir())
    assert {path.stem for path in written} == set(FIGURES)
    assert [path.name for path in save_all(sparse_summary, tmp_path / "sparse")] == ["metric_comparison.svg"]


def test_drawing_leaves_matplotlib_as_it_was(summary):
    before = dict(matplotlib.rcParams)
    utility_bars(summary)
    assert dict(matplotlib.rcParams) == before


def test_a_figure_is_drawn_once_for_page_and_files_and_again_only_when_numbers_change(summary, tmp_path, monkeypatch):
    drawn = []

    def counted(summary, kind="svg", paper="white"):
        drawn.append(kind)
        return utility_bars(summary, kind, paper)

    monkeypatch.setitem(FIGURES, "utility", counted)
    summary = replace(summary, tournament="drawn once")  # of no other test
    render(summary)
    save_all(summary, tmp_path)
    render(replace(summary, decision={"decision": "refuse", "by": "ana", "reason": "x"}, promoted=False))
    render(replace(summary, review=7, awaits_review=True))
    assert drawn == ["svg"]
    render(replace(summary, models=summary.models[:2]))
    assert drawn == ["svg", "svg"]
    assert b'fill="white"' in (tmp_path / "utility.svg").read_bytes()
