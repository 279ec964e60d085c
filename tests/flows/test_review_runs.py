"""Where reviews wait: in Prefect's UI when there is one, else on the command line."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL, temporary_settings

from esci_tournament.flows.review_runs import has_api, review_required, run_link, ui_link
from esci_tournament.registry.settings import Settings


@pytest.mark.slow
def test_the_link_leads_to_the_ui_whose_forms_work(served: tuple[Any, Any]) -> None:
    _, prefect = served
    assert run_link("0") == f"http://127.0.0.1:{prefect.port}/v2/runs/flow-run/0"


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
        assert run_link(None) == ""


@pytest.mark.parametrize(
    ("setting", "without_api", "with_api"),
    [("required", True, True), ("none", False, False), ("auto", False, True)],
)
def test_somebody_reviews_when_the_setting_says_so_or_there_is_a_ui_to_review_in(
    setting: Any, without_api: bool, with_api: bool
) -> None:
    for api, expected in ((None, without_api), ("http://prefect:4200/api", with_api)):
        with at(api):
            assert has_api() is (api is not None)
            assert review_required(Settings(review=setting)) is expected
