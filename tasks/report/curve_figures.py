"""Draw the learning curves of every model, a small panel each."""

from __future__ import annotations

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from esci_tournament.tasks.report import words
from esci_tournament.tasks.report.drawing import ACCENT, SECOND, Kind, image, legend_above
from esci_tournament.tasks.report.summary import ModelSummary, Summary

MOST_PANELS = 12  # models that are drawn; the page stays small with any number of them


def with_curves(summary: Summary) -> list[ModelSummary]:
    """Return the models that have a learning curve, in the order of the summary."""
    return [model for model in summary.models if any(_known(values).any() for values in model.curves.values())]


def learning_curves(summary: Summary, kind: Kind = "svg", paper: str = "white") -> bytes | None:
    """Draw what was measured after each epoch of each model: losses on the left axis, metrics on the right one.

    Args:
        summary: The summary of a tournament.
        kind: Format of the image.
        paper: Colour of the background, any that matplotlib takes; "none" for a transparent one.

    Returns:
        The image, with the first :data:`MOST_PANELS` models; None when no model has a curve.
    """
    models = with_curves(summary)[:MOST_PANELS]
    if not models:
        return None
    columns = min(2, len(models))
    rows = -(-len(models) // columns)

    def paint(figure: Figure) -> None:
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        handles: dict[str, Artist] = {}
        for place, axes in enumerate(grid):
            if place >= len(models):
                axes.set_visible(False)
                continue
            handles |= {name: handle for name, handle in _panel(axes, models[place]).items() if name not in handles}
        legend_above(figure, list(handles.values()))

    return image(paint, 0.5 + 1.65 * rows, kind, paper)


def _panel(axes: Axes, model: ModelSummary) -> dict[str, Artist]:
    """Draw one model's curves; both axes are drawn, one that has no curve without ticks."""
    name = words.display_name(model)
    axes.set_title(name if len(name) <= 30 else f"{name[:29]}…", fontsize=9)
    right = axes.twinx()
    handles: dict[str, Artist] = {}
    longest = 1
    for curve, values in model.curves.items():
        is_loss = "loss" in curve
        known, epochs = _known(values), np.arange(1, len(values) + 1)
        if not known.any():
            continue
        longest = max(longest, len(values))
        heights = np.array([value for value, is_known in zip(values, known, strict=True) if is_known], dtype=np.float64)
        title = f"{_title(curve)} ({'left' if is_loss else 'right'})"
        handles[title] = (axes if is_loss else right).plot(
            epochs[known],
            heights,
            "o-" if is_loss else "s--",
            color=SECOND if is_loss else ACCENT,
            markersize=3,
            linewidth=1.4,
            label=title,
        )[0]
    for side, is_used in ((axes, axes.lines), (right, right.lines)):
        side.tick_params(labelsize=8)
        side.locator_params(axis="y", nbins=4)
        if not is_used:
            side.set_yticks([])
    axes.set_xlim(0.6, longest + 0.4)
    axes.set_xticks(sorted({1, (longest + 1) // 2, longest}))
    axes.set_xlabel("epoch", fontsize=8)
    return handles


def _title(curve: str) -> str:
    """Return how a curve is written; those of our own families in the words of the page."""
    own = {"train_loss": "training loss", "validation_macro_f1": "macro F1 on validation"}
    return own.get(curve, words.metric_name(curve)[:40])


def _known(values: list[float | None]) -> np.ndarray:
    return np.array([value is not None and np.isfinite(value) for value in values], dtype=bool)
