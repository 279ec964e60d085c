"""What MkDocs calls while it builds the site: pages made from the code and from the repository's own files are added.

The pages of docs/ are written so that their links work in the repository. Here links to files outside of docs/ are led
to the page that has their content.
"""

from __future__ import annotations

import base64
import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import references
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
# File of the repository -> the page with its content
OF_REPOSITORY = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "SECURITY.md": "project/security-policy.md",
}
# Source that a page of docs/ links to -> the page that is made from it
OF_CODE = {
    "registry/settings.py": "reference/settings.md",
    "tasks/report/glossary.py": "reference/glossary.md",
    "deployments/cli/__init__.py": "reference/commands.md",
    "deployments/scorer/schemas.py": "reference/http.md",
    "deployments/package/__init__.py": "reference/python-api.md",
    "tasks/families/protocol.py": "reference/plug-ins.md",
}
NOTEBOOKS = "notebooks"
SHIM = "https://unpkg.com/iframe-worker/shim"  # what Material's plug-in for sites in files loads
_FENCE = re.compile(r"^ *(```|~~~)")
_LINK = re.compile(r"([^\]\[]*)\]\((?!\w+:|#|/)([^)\s#]+)(#[^)\s]*)?\)")
_AS_TABLE = re.compile(r"<style.*?</style>\s*| (?:border|class|style)=\"[^\"]*\"", re.DOTALL)  # pandas' own look
_ROLE = re.compile(r":(?:class|func|meth|data|attr|mod|exc):(?=<code>)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give every notebook a place in the navigation, under "Notebooks" in the how-to guides."""
    found = sorted((ROOT / "docs" / NOTEBOOKS).glob("*.ipynb"))
    if found and config.nav:
        (guides,) = (section["How-to"] for section in config.nav if "How-to" in section)
        guides.append({"Notebooks": [_page_of(notebook) for notebook in found]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that stand in no file of docs/."""
    for path, make in references.PAGES.items():
        files.append(File.generated(config, path, content=make()))
    for path, page in OF_REPOSITORY.items():
        alone = "---\nhide: [navigation]\n---\n" if page == "index.md" else ""  # it has no neighbours
        files.append(File.generated(config, page, content=alone + (ROOT / path).read_text(encoding="utf-8")))
    for notebook in sorted((ROOT / "docs" / NOTEBOOKS).glob("*.ipynb")):
        for path, content in _exported(notebook).items():
            files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return a page whose links lead to pages of the site."""
    here = page.file.src_uri
    start = next((path for path, one in OF_REPOSITORY.items() if one == here), f"docs/{here}")
    lines, fenced, titles = [], False, dict(_titles(config.nav))
    for line in markdown.split("\n"):
        fenced ^= bool(_FENCE.match(line))
        lines.append(line if fenced else _LINK.sub(lambda found: _led(found, start, here, titles), line))
    return "\n".join(lines)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return a page without the roles of reStructuredText that docstrings have before a name."""
    return _ROLE.sub("", html)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Return a page that takes the script for searching in files from the site, not from another host."""
    return output.replace(
        SHIM, posixpath.relpath("site/iframe-worker.js", posixpath.dirname(page.file.dest_uri) or ".")
    )


def on_post_template(output: str, template_name: str, config: MkDocsConfig) -> str:
    """Return the page for an address that is not there, with the same script from the site."""
    return output.replace(SHIM, "/site/iframe-worker.js")


def _led(link: re.Match[str], start: str, here: str, titles: dict[str, str]) -> str:
    """Return a link as it is on the site.

    Args:
        link: Text with what stands before it up to a bracket, path and anchor.
        start: File of the repository that has the link.
        here: Its page.
        titles: Page -> its name in the navigation, which stands in place of a file's name.

    Returns:
        The same in Markdown, with an address that is relative to the page.
    """
    path = posixpath.normpath(posixpath.join(posixpath.dirname(start), link[2]))
    page = {**OF_REPOSITORY, **OF_CODE}.get(path, path.removeprefix("docs/"))
    page = re.sub(rf"^({NOTEBOOKS}/.+)\.ipynb$", r"\1.md", page)
    address = posixpath.relpath(page, posixpath.dirname(here) or ".") + (link[3] or "")
    text = titles.get(page, link[1]) if link[1].endswith(".md") else link[1]
    return f"{text}]({address})"


def _titles(nav: Any) -> Iterator[tuple[str, str]]:
    """Yield page and name of everything in a navigation."""
    for entry in nav or ():
        for name, content in entry.items() if isinstance(entry, dict) else ():
            if isinstance(content, str):
                yield content, name
            else:
                yield from _titles(content)


def _page_of(notebook: Path) -> str:
    return f"{NOTEBOOKS}/{notebook.stem}.md"


def _exported(notebook: Path) -> dict[str, str | bytes]:
    """Return a notebook as a page, and its pictures, each under its path on the site."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        for output in cell.get("outputs", ()):
            content = output.get("data", {})
            if "image/png" in content:
                name = f"{notebook.stem}_{len(pictures)}.png"
                pictures[f"{NOTEBOOKS}/{name}"] = base64.b64decode("".join(content["image/png"]))
                parts.append(f"![{content.get('text/plain', ['output'])[0]}]({name})")
            elif frame := "".join(content.get("text/html") or ()):
                parts.append(_AS_TABLE.sub("", frame))
            elif told := "".join(output.get("text") or content.get("text/plain") or ()):
                parts.append(f"```text\n{told.rstrip()}\n```")
    return {_page_of(notebook): "\n\n".join(parts), **pictures}
