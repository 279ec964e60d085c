"""Draw the diagrams of the docs as SVG: `python docs/site/diagrams.py`, which `make pictures` runs, writes them.

They are files that every viewer shows, on a white card for light and dark pages, and no script is loaded for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

IMAGES = Path(__file__).resolve().parents[1] / "images"
STYLE = """\
text{font:14px system-ui,"Segoe UI",Helvetica,Arial,sans-serif;fill:#1c2330;text-anchor:middle}
.small{font-size:12px;fill:#5a6475}.head{font-weight:600}.left{text-anchor:start}
.card{fill:#fff;stroke:#d5dae3}.box{fill:#eef1f8;stroke:#7986cb}.store{fill:#fff7e6;stroke:#d9a441}
.person{fill:#e6f4ea;stroke:#4f9d69}.layer{fill:#f7f8fb;stroke:#c3c9d6}
.arrow{fill:none;stroke:#5a6475;stroke-width:1.5;marker-end:url(#tip)}"""
TIP = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0 8 4 0 8z" fill="#5a6475"/></marker></defs>'
)
WIDE, HIGH = 134, 54  # of a box, px


@dataclass(frozen=True)
class Box:
    """A step or a store.

    Attributes:
        x: Left edge, px.
        y: Upper edge, px.
        title: What it is called.
        below: What it does, in a smaller line.
        kind: "box", "store" or "person".
    """

    x: int
    y: int
    title: str
    below: str = ""
    kind: str = "box"

    def draw(self) -> str:
        """Return the box as SVG."""
        middle, first = self.x + WIDE // 2, self.y + (24 if self.below else 32)
        lines = [
            f'<rect class="{self.kind}" x="{self.x}" y="{self.y}" width="{WIDE}" height="{HIGH}" rx="7"/>',
            f'<text class="head" x="{middle}" y="{first}">{escape(self.title)}</text>',
        ]
        if self.below:
            lines.append(f'<text class="small" x="{middle}" y="{first + 18}">{escape(self.below)}</text>')
        return "".join(lines)


def svg(title: str, width: int, height: int, parts: list[str]) -> str:
    """Return a picture on a white card.

    Args:
        title: What it shows, for who cannot see it.
        width: Of the picture, px.
        height: Of the picture, px.
        parts: Elements of SVG, the hindmost first.

    Returns:
        The file's text.
    """
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    card = f'<rect class="card" x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="10"/>'
    top = [f'{head} role="img">', f"<title>{escape(title)}</title>", f"<style>{STYLE}</style>{TIP}{card}"]
    return "\n".join([*top, *parts, "</svg>", ""])


def arrow(*points: tuple[int, int]) -> str:
    """Return an arrow along points."""
    return f'<path class="arrow" d="M{" L".join(f"{x} {y}" for x, y in points)}"/>'


def tournament() -> str:
    """Return the way of a candidate from its registration to the scorer."""
    step, row = 160, 96
    at = [24 + step * number for number in range(6)]
    high = [24 + row * number for number in range(3)]
    boxes = [
        Box(at[0], high[0], "ESCI folder", "pairs, products", "store"),
        Box(at[1], high[0], "validate", "Great Expectations"),
        Box(at[2], high[0], "split", "by query"),
        Box(at[3], high[0], "train and score", "a process each"),
        Box(at[4], high[0], "profile", "MiB, ms a page"),
        Box(at[5], high[0], "aggregate", "LightGBM + SHAP"),
        Box(at[0], high[1], "candidates", "TOML or MLflow", "store"),
        Box(at[1], high[1], "enter", "with the members"),
        Box(at[5], high[1], "select", "under the budget"),
        Box(at[4], high[1], "judge", "paired bootstrap"),
        Box(at[3], high[1], "review", "a person decides", "person"),
        Box(at[2], high[1], "promote", "ledger, then alias"),
        Box(at[1], high[2], "every week", "drift, new data"),
        Box(at[2], high[2], "champion", "MLflow's alias", "store"),
        Box(at[3], high[2], "scorer", "cache, early exit"),
    ]
    half = HIGH // 2

    def across(x: int, y: int) -> str:
        return arrow((x + WIDE, y + half), (x + step - 2, y + half))

    def back(x: int, y: int) -> str:
        return arrow((x, y + half), (x - step + WIDE + 2, y + half))

    def down(x: int, y: int) -> str:
        return arrow((x + WIDE // 2, y + HIGH), (x + WIDE // 2, y + row - 2))

    bend = high[0] + HIGH + (row - HIGH) // 2
    arrows = [across(x, high[0]) for x in at[:5]] + [across(at[0], high[1])]
    arrows += [back(x, high[1]) for x in at[:2:-1]] + [down(at[5], high[0]), down(at[2], high[1])]
    arrows += [across(at[2], high[2]), back(at[2], high[2])]
    arrows.append(  # entrants are trained
        arrow(
            (at[1] + 100, high[1]),
            (at[1] + 100, bend),
            (at[3] + WIDE // 2, bend),
            (at[3] + WIDE // 2, high[0] + HIGH + 2),
        )
    )
    arrows.append(arrow((at[1] + WIDE // 2, high[2]), (at[1] + WIDE // 2, high[1] + HIGH + 2)))
    return svg(
        "From a candidate to the champion",
        at[5] + WIDE + 24,
        high[2] + HIGH + 24,
        [one.draw() for one in boxes] + arrows,
    )


LAYERS = (
    (
        "deployments/",
        "entry points and services",
        "command line, servers, watcher, scorer, model for MLflow",
    ),
    ("flows/", "order of steps", "tournament, watch, review, re-evaluation"),
    ("tasks/", "computation", "data, families, candidates, ensemble, report"),
    ("registry/", "configuration and storage", "settings, specs, stages, scores, ledger, policy, MLflow"),
)


def layers() -> str:
    """Return the four layers of the code and the direction of imports."""
    parts = []
    for number, (name, what, holds) in enumerate(LAYERS):
        top = 24 + 84 * number
        parts.append(f'<rect class="layer" x="24" y="{top}" width="672" height="60" rx="7"/>')
        parts.append(f'<text class="head left" x="44" y="{top + 26}">{name}</text>')
        parts.append(f'<text class="small left" x="44" y="{top + 46}">{what}</text>')
        parts.append(f'<text class="left" x="220" y="{top + 36}">{escape(holds)}</text>')
        if number:
            parts.append(arrow((360, top - 24), (360, top - 2)))
    return svg("The layers of the code; imports go one way", 720, 24 + 84 * len(LAYERS), parts)


DRAWN = {"tournament.svg": tournament, "layers.svg": layers}

if __name__ == "__main__":
    for name, draw in DRAWN.items():
        (IMAGES / name).write_text(draw(), encoding="utf-8")
