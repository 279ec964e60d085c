"""Addresses that people open: our page of a review where the server has it, else Prefect's."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL, temporary_settings

from esci_tournament.flows.links import review_link, run_link, ui_link


@pytest.mark.slow
def test_a_review_is_read_and_answered_on_our_page_where_the_server_has_it(served: tuple[Any, Any]) -> None:
    _, prefect = served
    assert review_link("0") == f"http://127.0.0.1:{prefect.port}/tournament/review/0"
    # Below a prefix only Prefect's pages are known to be reached
    with temporary_settings({PREFECT_UI_URL: "https://example.com/prefect"}):
        assert review_link("0") == "https://example.com/prefect/v2/runs/flow-run/0"
    with temporary_settings({PREFECT_UI_URL: "https://prefect.example.com"}):
        assert review_link("0") == "https://prefect.example.com/tournament/review/0"


def test_of_another_server_the_link_leads_to_the_ui_whose_forms_work(broken_api: str) -> None:
    with at(broken_api):
        assert review_link("0") == f"{broken_api.removesuffix('/api')}/v2/runs/flow-run/0"
    with at("http://127.0.0.1:9/api"):  # nobody listens there
        assert review_link("0") == "http://127.0.0.1:9/v2/runs/flow-run/0"


def at(api: str | None, ui: str | None = None) -> AbstractContextManager[Any]:
    """Let Prefect be at these addresses."""
    return temporary_settings({PREFECT_API_URL: api, PREFECT_UI_URL: ui})


@pytest.mark.parametrize(
    ("api", "ui", "link"),
    [
        (None, None, ""),
        ("http://prefect:4200/api", None, "http://prefect:4200/v2/artifacts/key/a"),
        ("http://prefect:4200/api/", None, "http://prefect:4200/v2/artifacts/key/a"),
        ("http://prefect:4200/api", "https://prefect.example.com/", "https://prefect.example.com/v2/artifacts/key/a"),
    ],
)
def test_links_lead_to_where_people_reach_prefect(api: str | None, ui: str | None, link: str) -> None:
    with at(api, ui):
        assert ui_link("artifacts/key/a") == link


def test_a_review_that_no_run_waits_for_has_no_link() -> None:
    with at("http://prefect:4200/api"):
        assert run_link(None) == review_link(None) == ""
