"""The site of the docs: it builds without a warning, its links lead somewhere, nothing comes from another host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import esci_tournament
from docs.site import diagrams
from esci_tournament.deployments.cli import COMMANDS
from esci_tournament.registry.settings import Settings
from esci_tournament.tasks.report import glossary
from tests.browser import options

ROOT = Path(__file__).resolve().parents[2]
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
NOT_LOADED = {"canonical", "next", "prev"}


class Page(HTMLParser):
    """One page: what can be led to, what it leads to, and what it loads."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.words = ""
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.add(given["href"])
        if LOADED.get(tag) in given and given.get("rel") not in NOT_LOADED:
            self.loads.add(given[LOADED[tag]])

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (built.returncode, built.stderr) == (0, "")
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {file: Page(file) for file in sorted(site.rglob("*.html"))}


def _inside(addresses: set[str], file: Path, site: Path) -> Iterator[tuple[Path, str]]:
    """Yield the file and the anchor of every address that is on the site."""
    for address in addresses:
        parts = urlsplit(address)
        if parts.scheme or parts.netloc:
            continue
        start = site if parts.path.startswith("/") else file.parent
        found = (start / unquote(parts.path).lstrip("/")).resolve() if parts.path else file
        yield (found / "index.html" if found.is_dir() else found), unquote(parts.fragment)


@pytest.mark.slow
def test_every_link_and_anchor_leads_somewhere(site: Path, pages: dict[Path, Page]) -> None:
    assert len(pages) > 30
    broken = []
    for file, page in pages.items():
        for target, anchor in _inside(page.links | page.loads, file, site):
            if not target.is_file() or (anchor and target in pages and anchor not in pages[target].ids):
                broken.append(f"{file.relative_to(site)} -> {target}#{anchor}")
    assert broken == []


@pytest.mark.slow
def test_nothing_is_loaded_from_another_host(site: Path, pages: dict[Path, Page]) -> None:
    foreign = {one for page in pages.values() for one in page.loads if urlsplit(one).netloc}
    for style in site.rglob("*.css"):
        foreign |= set(re.findall(r"url\((?:['\"])?(?:https?:)?//[^)]+", style.read_text(encoding="utf-8")))
    assert foreign == set()


@pytest.mark.slow
def test_public_names_settings_commands_and_terms_are_on_their_pages(site: Path, pages: dict[Path, Page]) -> None:
    reference = {name: pages[site / "reference" / f"{name}.html"] for name in ("python-api", "settings", "commands")}
    documented = {one.rsplit(".", 1)[-1] for one in reference["python-api"].ids}
    assert set(esci_tournament.__all__) - documented == {"__version__"}
    assert "et.__version__" in reference["python-api"].words
    assert set(Settings.model_fields) <= reference["settings"].ids
    assert {f"tournament-{name}" for name in COMMANDS} <= reference["commands"].ids
    assert all(term in pages[site / "reference" / "glossary.html"].words for term in glossary.TERMS)
    roles = re.compile(r":(?:class|func|meth|data):")
    assert [file for file, page in pages.items() if roles.search(page.words)] == []


@pytest.mark.slow
@pytest.mark.ui
def test_a_browser_finds_what_it_searches_for_without_a_network(site: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**options())
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "reference" / "settings.html").as_uri())
        page.get_by_role("textbox", name="Search").first.fill("review deadline")
        page.locator(".md-search-result__item").first.wait_for()
        assert "review_deadline_h" in page.locator(".md-search-result__list").inner_text()
        browser.close()
    assert {urlsplit(one).scheme for one in asked} <= {"file", "blob", "data", "about"}


@pytest.mark.parametrize("name", diagrams.DRAWN)
def test_a_diagram_is_the_one_that_is_drawn(name: str) -> None:
    assert (diagrams.IMAGES / name).read_text(encoding="utf-8") == diagrams.DRAWN[name](), "run `make pictures`"
