"""Debian's Chromium for the tests that drive a browser, and how it is started: without a word to its makers."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), "")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]


def options() -> dict[str, object]:
    """Return what Playwright's `chromium.launch` takes; the test is skipped where there is no Chromium."""
    if not CHROMIUM:
        pytest.skip("there is no Chromium; on Debian: apt-get install chromium")
    return {"executable_path": CHROMIUM, "args": FLAGS}


def picture(name: str) -> Path | None:
    """Return where a screenshot goes: the folder that SCREENSHOTS in the environment names; None without one."""
    folder = os.environ.get("SCREENSHOTS")
    return Path(folder) / f"{name}.png" if folder else None
