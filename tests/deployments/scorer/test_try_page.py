"""The page at `/`, in a real browser: a query is scored, errors are shown, and nothing is asked of another host."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn
from playwright.async_api import Page, async_playwright, expect

from tests.browser import options, picture
from tests.deployments.scorer.conftest import Stand, get
from tests.harness import free_port


def test_it_is_shown_without_a_key_and_may_talk_to_its_own_scorer_alone(stand: Stand) -> None:
    stand.gate.keys.create("search")
    page = get(stand, "/")
    assert page.status_code == 200
    assert "https:" not in page.text
    policy = dict(part.split(" ", 1) for part in page.headers["content-security-policy"].split("; "))
    assert (policy["default-src"], policy["connect-src"]) == ("'none'", "'self'")
    assert policy["script-src"].startswith("'sha256-")


async def tried(page: Page, stand: Stand, address: str) -> None:
    """Try a page of products, one that nobody knows, and one with a member down; then without a key."""
    await page.goto(address)
    await page.get_by_label("Query").fill("red lamp <b>")
    lines = "<img src=x onerror=alert(1)>\nid: P7\nid: nowhere"
    await page.get_by_label("Products, one a line").fill(lines)
    await page.get_by_text("show what each member").click()
    await page.get_by_role("button", name="Score").click()
    await expect(page.get_by_text("esci-ensemble, version 1:")).to_be_visible()
    table = page.get_by_role("table")
    await expect(table.get_by_text("<img src=x onerror=alert(1)>")).to_be_visible()
    await expect(table.get_by_text("nowhere", exact=True)).to_be_visible()
    assert await table.get_by_text("from alpha/1").count() == 2
    await page.get_by_text("The same with curl").click()
    await expect(page.locator("pre")).to_contain_text(f"{address}/v1/score")
    if path := picture("scorer-try"):
        await page.screenshot(path=path, full_page=True)
    _, secret = stand.gate.keys.create("search")
    await page.get_by_role("button", name="Score").click()
    await expect(page.get_by_role("alert")).to_contain_text("key")
    await page.get_by_text("API key", exact=True).click()
    await page.get_by_label("Key (needed").fill(secret)
    await page.get_by_role("button", name="Score").click()
    await expect(page.get_by_role("alert")).to_be_empty()


@pytest.mark.ui
@pytest.mark.slow
@pytest.mark.scorer(deadline_ms=60_000)
def test_a_person_tries_a_query(stand: Stand) -> None:
    how, port = options(), free_port()
    asked: list[str] = []

    async def go() -> None:
        server = uvicorn.Server(uvicorn.Config(stand.app, port=port, log_level="warning"))
        serving = asyncio.create_task(server.serve())
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(**how)  # type: ignore[arg-type]
            page = await browser.new_page()
            errors: list[Any] = []
            page.on("request", lambda request: asked.append(request.url))
            page.on("pageerror", lambda error: errors.append(error))
            await tried(page, stand, f"http://127.0.0.1:{port}")
            assert errors == []
            await browser.close()
        server.should_exit = True
        await serving

    stand.run(go())
    assert {url.split("/")[2] for url in asked if "favicon" not in url} == {f"127.0.0.1:{port}"}
