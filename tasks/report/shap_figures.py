"""The pictures of SHAP values that people know, drawn by `shap.plots`: bar and beeswarm, and a waterfall of a pair.

`shap.plots` takes its random numbers from numpy's global state, and draws a waterfall on pyplot's current figure: both
are held while it draws, and left as they were.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from esci_tournament.registry.errors import StoreError, UsageError
from esci_tournament.registry.files import write_atomically
from esci_tournament.registry.labels import LABEL_NAMES
from esci_tournament.tasks.report import words
from esci_tournament.tasks.report.drawing import FAINT, INK, Kind, image
from esci_tournament.tasks.report.summary import Summary

if TYPE_CHECKING:
    import shap

FORMATS = ("png", "svg", "pdf")
_DRAWING = threading.Lock()
_DISPLAYED = 12  # members; the others are summed


def shap_bar(summary: Summary, kind: Kind = "svg", paper: str = "white") -> bytes | None:
    """Draw `shap.plots.bar` of each class: the mean absolute contribution of each member.

    Args:
        summary: The summary of a tournament.
        kind: Format of the image.
        paper: Colour of the background, any that matplotlib takes; "none" for a transparent one.

    Returns:
        The image, or None when the summary has no contributions.
    """
    found = _sample(summary)
    if found is None:
        return None
    import shap

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        by_class = {name: found[:, :, name] for name in LABEL_NAMES}
        shap.plots.bar(by_class, max_display=_DISPLAYED, show_data=False, ax=axes, show=False)
        _quiet(axes)
        axes.set_xlabel("mean |SHAP value|, raw score", fontsize=10)
        handles, _ = axes.get_legend_handles_labels()
        axes.legend().remove()
        figure.legend(handles, LABEL_NAMES, loc="outside upper right", ncols=len(LABEL_NAMES))

    with _held():
        return image(paint, 1.2 + 0.75 * min(len(found.feature_names), _DISPLAYED), kind, paper)


def shap_beeswarm(summary: Summary, kind: Kind = "svg", paper: str = "white") -> bytes | None:
    """Draw `shap.plots.beeswarm` of each class: a dot is a pair, its colour the member's own probability of the class.

    Args:
        summary: The summary of a tournament.
        kind: Format of the image.
        paper: As :func:`shap_bar`.

    Returns:
        The image, or None when the summary has no contributions.
    """
    found = _sample(summary)
    if found is None or len(found.values) < 2:
        return None
    import shap

    def paint(figure: Figure) -> None:
        panels = figure.subplots(2, 2).ravel()
        for axes, name in zip(panels, LABEL_NAMES, strict=True):
            shap.plots.beeswarm(
                found[:, :, name], max_display=_DISPLAYED, ax=axes, show=False, plot_size=None, color_bar=False, s=9,
                axis_color=INK,
            )  # fmt: skip
            _quiet(axes)
            axes.set_title(name, fontsize=10, color=INK)
            axes.set_xlabel("SHAP value, raw score", fontsize=9)
            for dots in axes.collections:
                dots.set_rasterized(True)  # thousands of circles would make the page large

    with _held():
        return image(paint, 1.6 + 0.7 * min(len(found.feature_names), _DISPLAYED), kind, paper)


def save_waterfall(found: shap.Explanation, title: str, path: Path) -> None:
    """Write `shap.plots.waterfall` of one pair and class; the format follows from the file's name.

    Args:
        found: One row of one class: `values` float (k,), `base_values` a number, `data` float (k,), the member's own
            probability of the class.
        title: What stands above it.
        path: File to write: .png, .svg or .pdf; its folder is made if need be.

    Raises:
        StoreError: if it cannot be written.
        UsageError: if the format is unknown.
    """
    kind = path.suffix.lstrip(".").lower()
    if kind not in FORMATS:
        raise UsageError(f"picture {path}: format {kind!r} is unknown; end the name with .png, .svg or .pdf")
    import matplotlib.pyplot as plt
    import shap

    plain = shap.Explanation(
        found.values,
        base_values=float(found.base_values),
        data=np.round(found.data, 3),
        feature_names=[_plain(name) for name in found.feature_names],
    )
    buffer = io.BytesIO()
    with _held():
        figure = plt.figure()
        try:
            shap.plots.waterfall(plain, max_display=_DISPLAYED, show=False)
            plt.gca().set_title(_plain(shorten(title, 90, placeholder=" ...")), fontsize=11, pad=30, loc="left")
            figure.savefig(buffer, format=kind, dpi=120, bbox_inches="tight")
        finally:
            plt.close(figure)
    try:
        write_atomically(path, buffer.getvalue())
    except OSError as error:
        raise StoreError(
            f"picture {path} cannot be written: {error.strerror or error}; free space or choose a folder"
        ) from error


def _sample(summary: Summary) -> shap.Explanation | None:
    """Return the sample of contributions in a summary, with names that can be drawn."""
    if not summary.contributions:
        return None
    from esci_tournament.tasks.ensemble.explanation import from_json

    return from_json(
        {**summary.contributions, "members": [words.clean(one) for one in summary.contributions["members"]]}
    )


def _plain(text: str) -> str:
    """Return text in which a dollar sign does not begin mathematics."""
    return words.clean(text).replace("$", r"\$")


def _quiet(axes: Axes) -> None:
    """Give an axes the report's sizes and colours where shap has its own."""
    axes.tick_params(labelsize=9, labelcolor=INK, color=FAINT)
    for text in axes.texts:
        text.set_fontsize(8)


@contextmanager
def _held() -> Iterator[None]:
    with _DRAWING:
        before = np.random.get_state()
        np.random.seed(0)
        try:
            yield
        finally:
            np.random.set_state(before)
