"""Data Docs load nothing from another host, run no script, and their first page leads to all others."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from esci_tournament.tasks.data.docs_views import PAGE_POLICY
from esci_tournament.tasks.data.validate import check_folder

LOADS = {("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src"), ("form", "action")}


class Page(HTMLParser):
    """What a page loads, where it leads, and its policy."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.scripts, self.policy = 0, ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.scripts += tag == "script"
        self.loads += [str(given[name]) for kind, name in LOADS if kind == tag and name in given]
        if tag == "a":
            self.links.append(given.get("href") or "")
        if tag == "meta" and given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given.get("content") or ""


@pytest.fixture(scope="module")
def docs(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "docs"
    assert check_folder(tiny_world, folder).docs == folder / "index.html"
    return folder


def test_no_page_loads_or_runs_anything(docs: Path) -> None:
    pages = list(docs.rglob("*.html"))
    assert len(pages) > 10
    for path in pages:
        text = path.read_text(encoding="utf-8")
        page = Page(text)
        assert (page.loads, page.scripts, page.policy) == ([], 0, PAGE_POLICY), path
        assert not re.search(r"url\(|@import", text), path
    assert {path.suffix for path in docs.rglob("*") if path.is_file()} == {".html"}


def test_every_page_is_reached_from_the_first_and_leads_back(docs: Path) -> None:
    first = Page((docs / "index.html").read_text(encoding="utf-8"))
    reached = {(docs / link).resolve() for link in first.links if link != "#"}
    assert reached == {path for path in docs.rglob("*.html") if path.name != "index.html"}
    for path in reached:
        back = Page(path.read_text(encoding="utf-8")).links[0]
        assert (path.parent / back).resolve() == docs / "index.html"
