"""Files, pages and modules that the documentation refers to exist."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *sorted((ROOT / "docs").rglob("*.md")),
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")),
]
FOLDERS = "flows|tasks|registry|deployments|tests|benchmarks|docker|docs"
MADE_BY_THE_USER = {"docker/.env"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_paths_links_and_modules_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    paths = set(re.findall(rf"`((?:{FOLDERS})/[\w./-]+)`", text)) - MADE_BY_THE_USER
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
    links = re.findall(r"\]\(([\w./-]+\.(?:md|toml|png|svg|py|ipynb))(?:#[\w-]*)?\)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []
    modules = set(re.findall(r"(?:-m |from |import )((?:esci_tournament|benchmarks)(?:\.\w+)*)", text))
    assert [module for module in sorted(modules) if find_spec(module) is None] == []
