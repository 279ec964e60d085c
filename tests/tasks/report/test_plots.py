"""The plots of a notebook: what they show, on whose axes, and what they refuse."""

from __future__ import annotations

import io
from dataclasses import replace

import matplotlib
import pytest
from matplotlib.figure import Figure

from esci_tournament.registry.errors import NotFoundError, UsageError
from esci_tournament.tasks.report import shown, words
from esci_tournament.tasks.report.plots import plot_metric, plot_worth


@pytest.fixture
def ax():
    return Figure().subplots()


def names(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def test_every_model_has_its_dot_and_the_ensemble_its_interval(summary, ax):
    assert plot_metric(summary, ax=ax) is ax
    assert names(ax)[0] == "ensemble"
    measured = [model for model in summary.models if shown.aside(summary, model) or shown.alone(summary, model)]
    assert {words.display_name(model) for model in measured} <= set(names(ax))
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    own = summary.ensemble.value("macro_f1")
    assert [len(dots), dots[0].get_xdata()[0]] == [len(names(ax)), own]
    low, high = summary.ensemble_intervals["macro_f1"]
    ((drawn,),) = [bar.get_segments() for bar in ax.collections]
    assert drawn[:, 0].tolist() == pytest.approx([low, high])
    assert ax.get_xlabel() == "macro F1, on the test split"


def test_test_numbers_that_are_sealed_are_not_drawn(build_summary, ax):
    sealed = build_summary(sealed=True, out_of_fold=replace(build_summary().ensemble, accuracy=0.25))
    plot_metric(sealed, "accuracy", ax)
    assert "out of fold" in ax.get_xlabel()
    assert ax.lines[-len(names(ax))].get_xdata()[0] == 0.25
    assert not ax.collections
    assert not any("before" in name for name in names(ax))


def test_a_metric_that_was_not_measured_is_refused_with_those_that_were(summary, ax):
    with pytest.raises(UsageError, match="macro_f1"):
        plot_metric(summary, "macro_f2", ax)
    with pytest.raises(UsageError, match="there are accuracy, macro_f1, weighted_f1"):
        plot_metric(summary, "loss", ax)


def test_worth_is_drawn_in_per_cent_with_its_interval_the_most_first(summary, ax):
    plot_worth(summary, ax)
    worth = sorted((one for one in summary.models if one.utility is not None), key=lambda one: -one.utility)
    assert names(ax) == [words.display_name(one) for one in worth]
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([100 * one.utility for one in worth])
    assert len(ax.collections) == sum(one.utility_low is not None for one in worth) > 0


def test_without_members_there_is_nothing_to_draw(build_summary, ax):
    models = [replace(model, utility=None) for model in build_summary().models]
    with pytest.raises(NotFoundError, match="has no members"):
        plot_worth(build_summary(models=models), ax)


def test_a_name_with_a_dollar_sign_is_drawn_as_it_is(build_summary, ax):
    models = [replace(model, name="$\\frac{", version="") for model in build_summary().models]
    plot_metric(build_summary(models=models), ax=ax)
    ax.figure.savefig(io.BytesIO())
    assert "$\\frac{" in names(ax)


def test_a_new_figure_is_pyplots_so_that_a_notebook_shows_it(summary):
    matplotlib.use("agg")
    from matplotlib import pyplot

    try:
        assert plot_worth(summary).figure.number in pyplot.get_fignums()
    finally:
        pyplot.close("all")
