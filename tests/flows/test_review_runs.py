"""Where reviews wait: in Prefect's UI when there is one, else on the command line."""

from __future__ import annotations

from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from esci_tournament.flows.links import has_api
from esci_tournament.flows.review_runs import review_required
from esci_tournament.registry.settings import Settings


@pytest.mark.parametrize(
    ("setting", "without_api", "with_api"),
    [("required", True, True), ("none", False, False), ("auto", False, True)],
)
def test_somebody_reviews_when_the_setting_says_so_or_there_is_a_ui_to_review_in(
    setting: Any, without_api: bool, with_api: bool
) -> None:
    for api, expected in ((None, without_api), ("http://prefect:4200/api", with_api)):
        with temporary_settings({PREFECT_API_URL: api}):
            assert has_api() is (api is not None)
            assert review_required(Settings(review=setting)) is expected
