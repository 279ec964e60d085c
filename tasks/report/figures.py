"""Draw the report's figures with matplotlib's objects alone: the same summary gives the same bytes."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from esci_tournament.registry.files import write_atomically
from esci_tournament.registry.labels import LABEL_NAMES
from esci_tournament.tasks.report import shown, words
from esci_tournament.tasks.report.curve_figures import learning_curves
from esci_tournament.tasks.report.drawing import (
    ACCENT,
    FAINT,
    INK,
    LINE,
    PAPER,
    SECOND,
    THIRD,
    Kind,
    image,
    legend_above,
    name_rows,
)
from esci_tournament.tasks.report.shap_figures import shap_bar, shap_beeswarm
from esci_tournament.tasks.report.summary import Summary


def utility_bars(summary: Summary, kind: Kind = "svg", paper: str = "white") -> bytes | None:
    """Draw each member's SHAP share with its interval, and each model's share when all were in.

    Args:
        summary: The summary of a tournament.
        kind: Format of the image.
        paper: Colour of the background, any that matplotlib takes; "none" for a transparent one.

    Returns:
        The image, or None when no model has a utility.
    """
    models = [model for model in summary.models if model.utility is not None or model.utility_all is not None]
    if not models:
        return None
    models.sort(key=lambda model: (model.utility is None, -(model.utility or 0), -(model.utility_all or 0)))

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for row, model in enumerate(models):
            if model.utility is not None:
                axes.barh(row, 100 * model.utility, height=0.62, color=ACCENT, alpha=0.6, linewidth=0)
                if model.utility_low is not None and model.utility_high is not None:
                    whiskers = 100 * np.array(
                        [[max(0, model.utility - model.utility_low)], [max(0, model.utility_high - model.utility)]]
                    )
                    axes.errorbar(100 * model.utility, row, xerr=whiskers, color=INK, capsize=3, linewidth=1.2)
            if model.utility_all is not None:
                axes.plot(100 * model.utility_all, row, "D", markersize=6, color=PAPER, markeredgecolor=SECOND)
        if summary.noise:
            axes.axvline(100 * summary.noise["high"], color=THIRD, linestyle="--", linewidth=1)
        name_rows(axes, [words.display_name(model) for model in models])
        axes.set_xlabel("share of the ensemble's total SHAP, %")
        axes.set_xlim(left=0)
        axes.grid(axis="x")
        handles: list[Artist] = []
        if any(model.utility is not None for model in models):
            handles.append(Patch(color=ACCENT, alpha=0.6, linewidth=0, label="in this ensemble, with interval"))
        if any(model.utility_all is not None for model in models):
            handles += axes.plot(
                [], [], "D", markersize=6, color=PAPER, markeredgecolor=SECOND, label="when every model was in"
            )
        legend_above(figure, handles)

    return image(paint, 1.1 + 0.36 * len(models), kind, paper)


def metric_comparison(summary: Summary, kind: Kind = "svg", paper: str = "white") -> bytes | None:
    """Draw the metrics of the ensemble, the champion it met and every model alone.

    They are of the test split; of a sealed summary, out of fold and without the champion. The metrics are accuracy,
    macro F1 and weighted F1, and the declared one where it is another.

    Args:
        summary: The summary of a tournament.
        kind: Format of the image.
        paper: As :func:`utility_bars`.

    Returns:
        The image, or None when the ensemble's metrics are sealed and there are none out of fold.
    """
    own = shown.ensemble(summary)
    if own is None:
        return None
    rows = [("Ensemble", own)]
    if summary.champion is not None:
        rows.append((f"Champion v{words.clean(summary.champion_version)} (before)", summary.champion))
    alone = [(words.display_name(model), shown.alone(summary, model)) for model in summary.models]
    measured = [(name, metrics) for name, metrics in alone if metrics is not None]
    rows += sorted(measured, key=lambda row: -(shown.value(row[1], words.primary_metric(summary)) or 0.0))
    look = dict(
        zip(words.metric_names(summary), ((ACCENT, "o"), (SECOND, "s"), (THIRD, "^"), (INK, "D")), strict=False)
    )

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axhspan(-0.5, 0.5, color=LINE, alpha=0.5, linewidth=0)
        handles = []
        for metric, (color, marker) in look.items():
            values = [metrics.by_name().get(metric, np.nan) for _, metrics in rows]
            handles += axes.plot(
                values, range(len(rows)), marker, color=color, markersize=7, label=words.metric_name(metric)
            )
            axes.axvline(values[0], color=color, linewidth=0.8, linestyle=":")
        name_rows(axes, [name for name, _ in rows])
        axes.set_xlabel(f"{shown.place(summary)}; dotted: the ensemble")
        axes.grid(axis="x")
        axes.margins(x=0.06)
        legend_above(figure, handles)

    return image(paint, 1.1 + 0.32 * len(rows), kind, paper)


def confusion_matrix(summary: Summary, kind: Kind = "svg", paper: str = "white") -> bytes | None:
    """Draw the challenger's confusion matrix: rows sum to 100 %, counts beneath.

    Args:
        summary: The summary of a tournament.
        kind: Format of the image.
        paper: As :func:`utility_bars`.

    Returns:
        The image, or None when nothing was counted.
    """
    counts = np.asarray(shown.confusion(summary), dtype=np.float64)
    if counts.size == 0 or counts.sum() == 0:
        return None
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (row, column), value in np.ndenumerate(shares):
            text = f"{100 * value:.1f} %\n{counts[row, column]:,.0f}"
            axes.text(column, row, text, ha="center", va="center", color="white" if value > 0.55 else INK)
        axes.set_xticks(range(len(LABEL_NAMES)), LABEL_NAMES)
        axes.set_yticks(range(len(LABEL_NAMES)), LABEL_NAMES)
        axes.set_xlabel(f"predicted, {shown.place(summary)}")
        axes.set_ylabel("true")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)

    return image(paint, 3.8, kind, paper)


def budget_curve(summary: Summary, kind: Kind = "svg", paper: str = "white") -> bytes | None:
    """Draw the best validation metric that each budget buys, with the budget in force and what is used of it.

    Args:
        summary: The summary of a tournament.
        kind: Format of the image.
        paper: As :func:`utility_bars`.

    Returns:
        The image, or None when the selection recorded no curve.
    """
    selection = summary.selection
    budget, used = selection.get("budget") or {}, selection.get("used") or {}
    panels = [
        (sorted(points), budget.get(key), used.get(key), label)
        for curve, key, label in (
            ("curve_memory", "memory_mib", "memory, MiB"),
            ("curve_latency", "latency_ms", "latency, ms a page of 40 pairs"),
        )
        if (points := selection.get(curve) or [])
    ]
    if not panels:
        return None

    def paint(figure: Figure) -> None:
        grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        handles: dict[str, Artist] = {}
        for axes, (points, limit, amount, label) in zip(grid, panels, strict=True):
            x, y = np.asarray(points, dtype=np.float64).T
            axes.step(x, y, where="post", color=ACCENT, linewidth=1.8)
            axes.plot(x, y, "o", color=ACCENT, markersize=4)
            if limit is not None:
                handles["budget"] = axes.axvline(limit, color=SECOND, linestyle="--", label="budget")
            if amount is not None:
                handles["used"] = axes.axvline(amount, color=THIRD, linestyle=":", label="used")
            axes.set_xlim(left=0)
            axes.set_xlabel(label)
            axes.grid(axis="both")
            axes.locator_params(axis="x", nbins=5)
        grid[0].set_ylabel(f"best {words.metric_name(words.primary_metric(summary))}, validation")
        legend_above(figure, list(handles.values()))

    return image(paint, 3.0, kind, paper)


def reliability_diagram(summary: Summary, kind: Kind = "svg", paper: str = "white") -> bytes | None:
    """Draw accuracy against confidence on the test split, of the ensemble and of each model alone.

    Args:
        summary: The summary of a tournament.
        kind: Format of the image.
        paper: As :func:`utility_bars`.

    Returns:
        The image, or None when neither the ensemble nor a model has a calibration.
    """
    models = [model for model in summary.models if model.reliability]
    if not models and not summary.ensemble_reliability:
        return None

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        handles = axes.plot([0, 1], [0, 1], ":", color=FAINT, linewidth=1, label="confidence equals accuracy")
        for number, model in enumerate(models):
            x, y, _ = np.asarray(model.reliability, dtype=np.float64).T
            lines = axes.plot(x, y, color=SECOND, linewidth=1, alpha=0.45, label="each model alone")
            handles += lines[: 1 if number == 0 else 0]
        if summary.ensemble_reliability:
            x, y, pairs = np.asarray(summary.ensemble_reliability, dtype=np.float64).T
            axes.scatter(x, y, s=10 + 120 * pairs / pairs.max(), color=ACCENT, alpha=0.5, linewidth=0)
            handles += axes.plot(x, y, color=ACCENT, linewidth=1.8, label="ensemble; larger dots, more pairs")
        axes.set_xlim(0.2, 1.01)
        axes.set_ylim(0, 1.03)
        axes.set_xlabel("probability of the most probable class")
        axes.set_ylabel("share that is right")
        axes.grid(axis="both")
        legend_above(figure, handles)

    return image(paint, 3.6, kind, paper)


FIGURES: dict[str, Callable[..., bytes | None]] = {
    "metric_comparison": metric_comparison,
    "utility": utility_bars,
    "shap_bar": shap_bar,
    "shap_beeswarm": shap_beeswarm,
    "confusion_matrix": confusion_matrix,
    "budget_curve": budget_curve,
    "reliability": reliability_diagram,
    "learning_curves": learning_curves,
}


def save_all(summary: Summary, folder: Path, kinds: tuple[Kind, ...] = ("svg",)) -> list[Path]:
    """Write every figure that has something to show into a folder, each whole or not at all.

    Args:
        summary: What is drawn.
        folder: Made when it does not exist.
        kinds: File formats, "svg" and "png".

    Returns:
        The files written, `<name>.<kind>` in the order of :data:`FIGURES`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written, digest = [], digest_of(summary)
    for name, draw in FIGURES.items():
        for kind in kinds:
            drawn = _on_white(drawn_once(summary, name, digest)) if kind == "svg" else draw(summary, kind)
            if drawn is None:
                continue
            path = folder / f"{name}.{kind}"
            write_atomically(path, drawn)
            written.append(path)
    return written


# Digest of what is shown, and name of a figure -> the figure: page and files have the same ones, and the page is
# written again when a reviewer has decided. Drawing takes half a second each.
_KEPT: OrderedDict[tuple[str, str], bytes | None] = OrderedDict()
_LOCK = threading.Lock()
_MOST_KEPT = 4 * len(FIGURES)
_UNDECIDED: dict[str, Any] = {
    "decision": {}, "ensemble_version": "", "manifest": "", "promoted": False, "awaits_review": False, "review": None,
}  # fmt: skip


def digest_of(summary: Summary) -> str:
    """Return a SHA-256 (hex) of all that figures may show: two summaries that differ in the decision alone share it."""
    return hashlib.sha256(replace(summary, **_UNDECIDED).to_json().encode()).hexdigest()


def drawn_once(summary: Summary, name: str, digest: str = "") -> bytes | None:
    """Return a figure as SVG without a background; it is drawn once for summaries that differ in the decision alone.

    Args:
        summary: What is drawn.
        name: A key of :data:`FIGURES`.
        digest: What :func:`digest_of` returned for it; default: it is computed, which takes a while.

    Returns:
        The SVG, or None when there is nothing to show.
    """
    key = digest or digest_of(summary), name
    with _LOCK:
        if key not in _KEPT:
            _KEPT[key] = FIGURES[name](summary, "svg", "none")
            while len(_KEPT) > _MOST_KEPT:
                _KEPT.popitem(last=False)
        return _KEPT[key]


def _on_white(image: bytes | None) -> bytes | None:
    """Return an SVG with white paper behind it, as a file of its own needs."""
    if image is None:
        return None
    end = image.index(b">", image.index(b"<svg")) + 1
    return image[:end] + b'<rect width="100%" height="100%" fill="white"/>' + image[end:]
