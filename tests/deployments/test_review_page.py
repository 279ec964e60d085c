"""The page of a review: what it tells, to whom, and what it makes of foreign text. A browser: test_review_ui.py."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from esci_tournament.deployments.review_page import HEADERS, PAGE, ReviewPage, to_html
from esci_tournament.registry.addresses import REVIEW_PAGE_HEADER, REVIEW_PATH

RUN = "00000000-0000-0000-0000-000000000001"
HERE = f"{REVIEW_PATH}/{RUN}"


class Api:
    """The four answers of Prefect's API that the page is made of; the password is `right`."""

    def __init__(self) -> None:
        keys = {name: f"suspended-gate-1-{name}" for name in ("description", "response", "schema")}
        details = {"pause_key": "gate-1", "run_input_keyset": keys}
        self.run: dict[str, Any] = {
            "name": "review esci-ensemble v7",
            "parameters": {"verdict": 7},
            "state": {"type": "PAUSED", "name": "Suspended", "message": None, "state_details": details},
        }
        self.inputs: dict[str, Any] = {}
        self.artifacts: list[dict[str, Any]] = []

    async def answer(self, request: Request) -> Response:
        if request.headers.get("authorization") != "Basic right":
            return JSONResponse({"exception_message": "Unauthorized"}, 401)
        path = request.url.path
        if path == f"/api/flow_runs/{RUN}":
            return JSONResponse(self.run)
        if path == "/api/artifacts/filter":
            assert (await request.json())["artifacts"] == {"flow_run_id": {"any_": [RUN]}}
            return JSONResponse(self.artifacts)
        key = path.rpartition("/")[2]
        if key in self.inputs:
            return PlainTextResponse(json.dumps(self.inputs[key]))
        return JSONResponse({"detail": "not found"}, 404)


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def client(api: Api) -> TestClient:
    prefect = Starlette(routes=[Route("/{path:path}", api.answer, methods=["GET", "POST"])])
    return TestClient(ReviewPage(prefect), headers={"Authorization": "Basic right"})


def test_the_page_has_no_content_of_its_own_and_its_policy_lets_its_one_script_run(client: TestClient) -> None:
    answer = client.get(HERE, headers={"Authorization": ""})
    assert answer.text == PAGE
    (script,) = re.findall(r"<script>(.*?)</script>", PAGE, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in answer.headers["content-security-policy"]
    assert "default-src 'none'" in HEADERS["Content-Security-Policy"]
    assert re.findall(r"(?:src|href)=\"?http|url\(|@import", PAGE) == []


def test_a_question_is_told_to_whom_the_api_tells_it(api: Api, client: TestClient) -> None:
    api.inputs = {"suspended-gate-1-description": "### Promote it?", "suspended-gate-1-schema": {"properties": {}}}
    told = client.get(f"{HERE}/content")
    assert told.json() == {
        "title": "review esci-ensemble v7",
        "html": "<h1>Promote it?</h1>\n",
        "report": "",
        "gate": "gate-1",
        "code": False,
        "ended": False,
        "state": "Suspended",
        "words": "",
        "run": f"/v2/runs/flow-run/{RUN}",
    }
    assert told.headers["cache-control"] == "no-store"
    refused = client.get(f"{HERE}/content", headers={"Authorization": "Basic wrong"})
    assert (refused.status_code, refused.json()) == (401, {"detail": "log in first"})


def test_a_form_that_is_not_stored_yet_cannot_be_answered(api: Api, client: TestClient) -> None:
    told = client.get(f"{HERE}/content").json()
    assert (told["gate"], told["html"], told["ended"]) == (None, "", False)


def test_a_code_is_asked_for_where_the_form_has_one(api: Api, client: TestClient) -> None:
    schema = {"properties": {"code": {"type": "string"}}}
    api.inputs = {"suspended-gate-1-description": "x", "suspended-gate-1-schema": schema}
    assert client.get(f"{HERE}/content").json()["code"]


def test_what_was_decided_on_and_the_outcome_stay_readable(api: Api, client: TestClient) -> None:
    api.run["state"] = {"type": "COMPLETED", "name": "Approved", "message": "version 7 is champion"}
    api.artifacts = [
        {"type": "markdown", "key": "review-t-1-7", "data": "### New"},
        {"type": "markdown", "key": "review-t-1-7", "data": "### Old"},
        {"type": "markdown", "key": "report-t-1-7", "data": "# Report"},
        {"type": "table", "key": "report-t-1-8", "data": []},
    ]
    told = client.get(f"{HERE}/content").json()
    assert (told["ended"], told["state"], told["words"]) == (True, "Approved", "version 7 is champion")
    assert (told["html"], told["report"]) == ("<h1>New</h1>\n", "<h1>Report</h1>\n")


def test_a_run_that_is_no_review_is_not_shown(api: Api, client: TestClient) -> None:
    api.run["parameters"] = {}
    answer = client.get(f"{HERE}/content")
    assert (answer.status_code, answer.json()["detail"]) == (404, "this run is no review")


@pytest.mark.parametrize("path", ["/x", "/../api", f"/{RUN}/content/more", f"/{RUN}/other", "/%2e%2e/content"])
def test_other_addresses_below_it_have_nothing(client: TestClient, path: str) -> None:
    assert client.get(f"{REVIEW_PATH}{path}").status_code in (401, 404)


def test_nothing_is_changed_through_it_and_everything_else_is_prefects(client: TestClient) -> None:
    assert client.post(f"{HERE}/content").status_code == 405
    assert client.get(f"{REVIEW_PATH}er").status_code == 404
    assert REVIEW_PAGE_HEADER not in client.get(f"{REVIEW_PATH}er").headers
    assert client.get(REVIEW_PATH).headers[REVIEW_PAGE_HEADER] == "1"


ALLOWED = set(
    re.findall(r"\w+", "h1 h2 p a em strong code pre blockquote ul ol li br hr table thead tbody tr th td div")
)


@given(st.text(st.sampled_from(list("<>/ab \"'()[]!#|-`&:\n")), max_size=60) | st.text(max_size=30))
def test_tags_are_markdowns_own_whatever_is_quoted(text: str) -> None:
    html = to_html(f"### Promote {text}\n\n[x](javascript:{text}) {text}")
    assert {tag.lower() for tag in re.findall(r"</?([a-zA-Z][a-zA-Z0-9]*)", html)} <= ALLOWED
    assert not re.search(r"(?:href|src)=\"\s*(?:javascript|data|vbscript):", html, re.IGNORECASE)
