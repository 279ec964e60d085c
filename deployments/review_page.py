"""The page that a review's link opens: the question, the numbers, and the buttons that answer it.

Prefect's own page of a run that waits is empty, and its form stands behind a menu. This page stands on the same server,
shows what the flow run asks, and answers through Prefect's API. It has no rights of its own: whatever is read or
answered is asked of the API with the password that the browser holds, so that all that guards the API guards the page.
"""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from importlib.resources import files
from typing import Any
from uuid import UUID

import httpx
from markdown_it import MarkdownIt
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from esci_tournament.deployments.page_policy import policy_of
from esci_tournament.registry.addresses import REVIEW_PAGE_HEADER, REVIEW_PATH

PAGE = (files(__package__) / "review_page.html").read_text(encoding="utf-8")
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": policy_of(PAGE),
    REVIEW_PAGE_HEADER: "1",
}
# Names of the inputs of a run that waits are Prefect's: `suspended-gate-2-description`.
_RUNS = "/api/flow_runs"
_TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)


class ReviewPage:
    """ASGI middleware that answers below :data:`REVIEW_PATH`, and hands on everything else.

    Args:
        app: The application behind it, Prefect's, which is asked for what the page shows.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not f"{path}/".startswith(f"{REVIEW_PATH}/"):
            await self.app(scope, receive, send)
            return
        answer = await self._answer(Request(scope, receive), path.removeprefix(REVIEW_PATH).strip("/").split("/"))
        answer.headers.update(HEADERS)
        await answer(scope, receive, send)

    async def _answer(self, request: Request, parts: list[str]) -> Response:
        if request.method not in ("GET", "HEAD"):
            return _told("GET or HEAD", HTTPStatus.METHOD_NOT_ALLOWED)
        if parts == [""]:
            return Response(status_code=HTTPStatus.NO_CONTENT)
        try:
            run = str(UUID(parts[0]))
        except ValueError:
            return _told("no run has such an id", HTTPStatus.NOT_FOUND)
        if parts[1:] == ["content"]:
            return await self._content(run, request.headers.get("authorization"))
        return HTMLResponse(PAGE) if len(parts) == 1 else _told("there is no such page", HTTPStatus.NOT_FOUND)

    async def _content(self, run: str, authorization: str | None) -> Response:
        """Return what the page shows of a flow run, as JSON; or the answer with which Prefect's API declined."""
        headers = {"Authorization": authorization} if authorization else {}
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as client:
            found = await client.get(f"{_RUNS}/{run}")
            if found.status_code != HTTPStatus.OK:
                words = "log in first" if found.status_code == HTTPStatus.UNAUTHORIZED else "there is no such review"
                return _told(words, HTTPStatus(found.status_code))
            content = found.json()
            if "verdict" not in content.get("parameters", {}):
                return _told("this run is no review", HTTPStatus.NOT_FOUND)
            return JSONResponse(await _shown(client, run, content))


async def _shown(client: httpx.AsyncClient, run: str, content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of the page.

    Args:
        client: Asks Prefect's API.
        run: Id of the flow run.
        content: The flow run, as the API has it.

    Returns:
        `title`; `html` of the question, "" while it is being prepared and when it was answered; `report` as HTML;
        `gate`, the key under which the answer is waited for, None while none is; `code`, whether a one-time code is
        asked for; `ended`, `state` and `words`, which tell the outcome; `run`, the path of the run in Prefect's UI.
    """
    state = content.get("state") or {}
    details = state.get("state_details") or {}
    keys = details.get("run_input_keyset") or {} if state.get("type") == "PAUSED" else {}
    artifacts = await _artifacts(client, run)
    ended = state.get("type") in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
    asked = await _input(client, run, keys.get("description"))
    schema = await _input(client, run, keys.get("schema"))
    # What was decided on stays readable
    question = asked if isinstance(asked, str) else artifacts.get("review", "") if ended else ""
    return {
        "title": str(content.get("name", "review")),
        "html": to_html(question),
        "report": to_html(artifacts.get("report", "")),
        "gate": details.get("pause_key") if asked and schema else None,
        "code": isinstance(schema, dict) and "code" in schema.get("properties", {}),
        "ended": ended,
        "state": str(state.get("name", "")),
        "words": str(state.get("message") or ""),
        "run": f"/v2/runs/flow-run/{run}",
    }


async def _input(client: httpx.AsyncClient, run: str, key: str | None) -> Any:
    """Return what a run stored under a key, None before it did."""
    if not key:
        return None
    found = await client.get(f"{_RUNS}/{run}/input/{key}")
    if found.status_code != HTTPStatus.OK:
        return None
    return json.loads(found.content)


async def _artifacts(client: httpx.AsyncClient, run: str) -> dict[str, str]:
    """Return the Markdown of a run's newest artifacts by the first word of their keys: `report`, `review`."""
    wanted = {"artifacts": {"flow_run_id": {"any_": [run]}}, "sort": "CREATED_DESC", "limit": 50}
    found = await client.post("/api/artifacts/filter", json=wanted)
    if found.status_code != HTTPStatus.OK:
        return {}
    newest: dict[str, str] = {}
    for one in found.json():
        if one.get("type") == "markdown" and isinstance(one.get("data"), str):
            newest.setdefault(str(one.get("key", "")).partition("-")[0], one["data"])
    return newest


def to_html(markdown: str) -> str:
    r"""Return Markdown as HTML in which every tag is of Markdown's own making.

    Args:
        markdown: CommonMark with tables. HTML in it is shown as text, and links that could run a script are not made.

    Returns:
        HTML. The first heading is an `h1`, those after it begin with `h2`; tables scroll by themselves.

    Example:
        >>> to_html("### Promote <b>?")
        '<h1>Promote &lt;b&gt;?</h1>\n'
    """
    writer = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    tokens = writer.parse(markdown)
    first = True
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = "h1" if first else "h2"
            first = first and token.type == "heading_open"
    html = str(writer.renderer.render(tokens, writer.options, {}))
    return _TABLE.sub(lambda found: f'<div class="wide" tabindex="0">{found[0]}</div>', html)


def _told(words: str, status: HTTPStatus) -> JSONResponse:
    return JSONResponse({"detail": words}, status)
