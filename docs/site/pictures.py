"""Make the pictures of the docs: `python docs/site/pictures.py HOME SCREENSHOTS`, which `make pictures` runs.

HOME is that of a finished `tournament demo`, whose report is photographed. SCREENSHOTS has what tests that drive a
browser have seen; pages decide by their links which of them are kept.
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image, ImageDraw
from playwright.sync_api import FloatRect, Page, sync_playwright

from esci_tournament.registry.settings import read_settings
from esci_tournament.registry.tournaments import finished
from esci_tournament.registry.workspace import Workspace

IMAGES = Path(__file__).resolve().parents[1] / "images"
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu"]
WIDE, MARGIN = 1280, 12  # px
COLORS = 128  # of a picture


def second_report(home: Path) -> Path:
    """Return the report of the demo's second tournament, in which a challenger met a champion."""
    return home / "tournaments" / finished(Workspace(read_settings(home=home)).ledger)[1].tournament / "report.html"


def write(name: str, picture: Image.Image) -> None:
    """Write a picture with few colours, which a page with text does not need more of."""
    few = picture.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
    few.save(IMAGES / f"{name}.png", optimize=True)


def keep(screenshots: Path) -> None:
    """Write those pictures of a folder that a page shows."""
    pages = [IMAGES.parents[1] / "README.md", *IMAGES.parent.rglob("*.md")]
    shown = "".join(page.read_text(encoding="utf-8") for page in pages)
    for file in sorted(screenshots.glob("*.png")):
        if f"images/{file.name})" in shown:
            write(file.stem, Image.open(file))


def leaderboard(page: Page) -> Image.Image:
    """Return the report's table of models without its last column, which says why some are no members."""
    page.set_viewport_size({"width": 1000, "height": 1400})
    page.add_style_tag(content="#models :is(th, td):last-child { display: none } #models p { max-width: 48rem }")
    section, table = page.locator("#models").bounding_box(), page.locator("#models table").first.bounding_box()
    if section is None or table is None:
        raise SystemExit("the report has no table of models")
    x, y = table["x"] - MARGIN, section["y"] + 2
    clip = FloatRect(x=x, y=y, width=table["width"] + 2 * MARGIN, height=table["y"] + table["height"] - y)
    return Image.open(io.BytesIO(page.screenshot(clip=clip, full_page=True))).convert("RGB")


def review() -> Image.Image:
    """Return the upper part of the page of a review, which a test has photographed."""
    picture = Image.open(IMAGES / "first-hour-review.png").convert("RGB")
    return picture.crop((0, 0, picture.width, min(picture.height, picture.width * 2 // 3)))


def side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    """Return two pictures of the same height on white, each with a thin border."""
    right = right.resize((right.width * left.height // right.height, left.height), Image.Resampling.LANCZOS)
    whole = Image.new("RGB", (left.width + right.width + 3 * MARGIN, left.height + 2 * MARGIN), "white")
    pen, x = ImageDraw.Draw(whole), MARGIN
    for one in (left, right):
        whole.paste(one, (x, MARGIN))
        pen.rectangle((x - 1, MARGIN - 1, x + one.width, MARGIN + one.height), outline="#c3c9d6")
        x += one.width + MARGIN
    return whole


def take(home: Path) -> None:
    """Write the report's first screen, and its table of models beside the page of a review."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": WIDE, "height": 640})
        page.goto(second_report(home).as_uri())
        write("report", Image.open(io.BytesIO(page.screenshot())))
        write("leaderboard-and-review", side_by_side(leaderboard(page), review()))
        browser.close()


if __name__ == "__main__":
    keep(Path(sys.argv[2]))
    take(Path(sys.argv[1]).resolve())
