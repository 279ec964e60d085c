"""How the report's figures are drawn: colours, style and bytes, with matplotlib's objects alone.

The same input gives the same bytes, and nothing of matplotlib's own state is changed.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Kind = Literal["svg", "png"]

# The page replaces these by its own variables, so that inline figures follow its light and dark themes.
INK, FAINT, LINE, PAPER = "#1f2429", "#6a737d", "#d3d9e0", "#fffffe"
ACCENT, SECOND, THIRD = "#2762c9", "#b35a00", "#1d7f5f"

_WIDTH = 5.8  # inches; text of 10 points stays readable when a phone scales the figure down
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a name is not mathematics
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": LINE,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "none",  # text stays text: selectable, small, in the reader's font
    "svg.hashsalt": "tournament",
}


def name_rows(axes: Axes, names: list[str]) -> None:
    """Write a name at each row of bars, the first at the top; one above 30 characters is cut."""
    shown = [name if len(name) <= 30 else f"{name[:29]}…" for name in names]
    axes.set_yticks(range(len(shown)), shown)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)


def legend_above(figure: Figure, handles: Sequence[Artist]) -> None:
    """Put the legend above the axes; none without handles."""
    if handles:
        figure.legend(handles=handles, loc="outside upper right", ncols=len(handles))


def image(paint: Callable[[Figure], None], height: float, kind: Kind, paper: str) -> bytes:
    """Return a figure of `height` inches as bytes without warnings of glyphs that our font lacks."""
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        paint(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=150 if kind == "png" else 72, facecolor=paper, metadata=metadata)
        return buffer.getvalue()
