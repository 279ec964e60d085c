"""Plots of a tournament for notebooks, on matplotlib's axes; the caller may give them, and may draw on them after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esci_tournament.registry.errors import NotFoundError, UsageError
from esci_tournament.registry.spelling import did_you_mean
from esci_tournament.tasks.report import shown, words
from esci_tournament.tasks.report.summary import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BY_MODEL = 0.4  # inches of height


def plot_metric(summary: Summary, metric: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw one metric of the ensemble, of the champion that it met and of every model alone, the best model first.

    They are of the test split; where it is sealed, they are out of fold, as the axis says. A hollow dot is a model
    whose test numbers alone are sealed: it is measured on the pairs that the aggregator learns from.

    Args:
        summary: The summary of a tournament.
        metric: "accuracy", "macro_f1", "weighted_f1" or the declared one; default: the declared one.
        ax: Where to draw; default: a new figure of pyplot's.

    Returns:
        The axes. The ensemble has the 95 % interval of a bootstrap over queries, where one was measured.

    Raises:
        UsageError: if no such metric was measured.
    """
    metric = words.primary_metric(summary) if metric is None else metric
    known = words.metric_names(summary)
    if metric not in known:
        advice = did_you_mean(metric, list(known)) or f"; there are {', '.join(known)}"
        raise UsageError(f"metric {metric!r} was not measured{advice}")
    rows: list[tuple[str, float, bool]] = []
    for model in summary.models:
        aside = shown.aside(summary, model)
        value = shown.value(aside or shown.alone(summary, model), metric)
        if value is not None:
            rows.append((words.display_name(model), value, aside is not None))
    rows.sort(key=lambda row: -row[1])
    before = None if summary.sealed else shown.value(summary.champion, metric)
    if before is not None:
        rows.insert(0, (f"champion v{words.clean(summary.champion_version)} (before)", before, False))
    own = shown.value(shown.ensemble(summary), metric)
    if own is not None:
        rows.insert(0, ("ensemble", own, False))
    ax = _axes(ax, len(rows))
    if own is not None:
        low, high = (None, None) if summary.sealed else summary.ensemble_intervals.get(metric, (None, None))
        if low is not None and high is not None:
            whiskers = [[max(own - low, 0.0)], [max(high - own, 0.0)]]
            ax.errorbar(own, 0, xerr=whiskers, color="C0", capsize=4, label="95 % interval")
        ax.axvline(own, color="C0", linewidth=0.8, linestyle=":")
    for row, (_, value, aside_only) in enumerate(rows):
        ax.plot(value, row, "o", color="C0" if row == 0 else "C1", fillstyle="none" if aside_only else "full")
    _name_rows(ax, [name for name, _, _ in rows])
    ax.set_xlabel(f"{known[metric]}, {shown.place(summary)}")
    return ax


def plot_worth(summary: Summary, ax: Axes | None = None) -> Axes:
    """Draw what each member is worth: its share of the ensemble's SHAP values, with its interval over re-fits.

    Args:
        summary: The summary of a tournament.
        ax: Where to draw; default: a new figure of pyplot's.

    Returns:
        The axes, in per cent. A dashed line is what a member of noise is credited with in one of twenty re-fits, where
        that was measured.

    Raises:
        NotFoundError: if no model of the tournament became a member.
    """
    worth = [(words.display_name(one), one.utility, one) for one in summary.models if one.utility is not None]
    if not worth:
        raise NotFoundError(f"tournament {summary.tournament} has no members whose worth could be drawn")
    worth.sort(key=lambda row: -row[1])
    ax = _axes(ax, len(worth))
    for row, (_, share, model) in enumerate(worth):
        ax.barh(row, 100 * share, height=0.6, color="C0", alpha=0.6)
        if model.utility_low is not None and model.utility_high is not None:
            ends = [[100 * max(share - model.utility_low, 0.0)], [100 * max(model.utility_high - share, 0.0)]]
            ax.errorbar(100 * share, row, xerr=ends, color="black", capsize=4)
    if summary.noise:
        ax.axvline(100 * summary.noise["high"], color="C3", linestyle="--", linewidth=1, label="noise")
    _name_rows(ax, [name for name, _, _ in worth])
    ax.set_xlim(left=0)
    ax.set_xlabel("share of the ensemble's total SHAP, %")
    return ax


def _axes(ax: Axes | None, rows: int) -> Axes:
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(6.4, 1.0 + _BY_MODEL * rows), layout="constrained")[1]


def _name_rows(ax: Axes, names: list[str]) -> None:
    ax.set_yticks(range(len(names)), names)
    for label in ax.get_yticklabels():
        label.set_parse_math(False)  # a dollar sign in a name is not mathematics
    ax.set_ylim(len(names) - 0.5, -0.5)
