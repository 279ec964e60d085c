"""The pages of the Data Docs, without anything from another host.

Great Expectations' own pages load styles, scripts and a picture from seven hosts, one with an id of the installation,
and without them the first page is empty. These views keep its renderers, and put what they say into plain pages.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from great_expectations.render.view import DefaultJinjaIndexPageView, DefaultJinjaPageView
from jinja2 import ChoiceLoader, FileSystemLoader

_TEMPLATES = Path(__file__).with_name("data_docs")
_VIEW = {"module_name": __name__, "class_name": "PageView"}
# A page may show its own styles, and nothing else: no script runs in it, whatever a cell of the data holds.
PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def site(folder: str) -> Any:
    """Return the configuration of a Data Docs site whose pages these views make.

    Args:
        folder: Where the pages are written, relative to the project of Great Expectations.

    Returns:
        What `update_data_docs_site` takes.
    """
    return {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": folder},
        "site_index_builder": {
            "class_name": "DefaultSiteIndexBuilder",
            "view": {"module_name": __name__, "class_name": "IndexView"},
        },
        "site_section_builders": {"expectations": {"view": _VIEW}, "validations": {"view": _VIEW}, "profiling": "None"},
    }


class _Offline:
    """Finds our templates before those of Great Expectations."""

    env: Any

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.env.loader = ChoiceLoader([FileSystemLoader(_TEMPLATES), self.env.loader])
        self.env.globals["page_policy"] = PAGE_POLICY


class PageView(_Offline, DefaultJinjaPageView):  # type: ignore[misc]
    """A page of one suite or one validation."""


class IndexView(_Offline, DefaultJinjaIndexPageView):  # type: ignore[misc]
    """The first page: the validations and the suites, with links."""

    _template: ClassVar[str] = "page.j2"
