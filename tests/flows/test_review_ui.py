"""A review in a real browser: Prefect's UI, driven by Playwright in Debian's Chromium.

With SCREENSHOTS=folder in the environment the screenshots are saved there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect, sync_playwright
from prefect.client.orchestration import get_client

from esci_tournament.deployments.stack.logins import LOGIN_PATH, login_link
from esci_tournament.flows.decision import answer
from esci_tournament.flows.links import review_link, run_link
from esci_tournament.flows.review import reconcile_reviews
from esci_tournament.registry.reviewers import Answer
from esci_tournament.registry.reviews import Case
from tests.browser import options
from tests.browser import picture as where

pytestmark = [pytest.mark.slow, pytest.mark.ui]

PATIENCE_MS = 120_000  # a flow run's process takes seconds to start, more on a busy machine


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    how = options()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**how)
        expect.set_options(timeout=30_000)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page(browser: Browser, served: tuple[Any, Any]) -> Iterator[Page]:
    """A page of a browser that a one-time link has logged in; whatever it shows, it asks no other host for anything."""
    _, prefect = served
    page = browser.new_page(viewport={"width": 1280, "height": 1150})
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(request.url))
    page.set_default_timeout(30_000)
    page.goto(login_link(prefect.settings.home, prefect.api))
    page.wait_for_url("**/v2/**")
    expect(page.get_by_role("button", name="Logout")).to_be_visible()
    yield page
    ours = prefect.api.removesuffix("/api")
    assert {url for url in asked if not url.startswith((ours, "data:", "blob:"))} == set()
    page.close()


def picture(page: Page, name: str) -> None:
    if path := where(name):
        page.screenshot(path=path)


def state(page: Page, name: str) -> None:
    """Wait until the page of the run shows a state."""
    expect(page.get_by_text(name, exact=True).first).to_be_visible(timeout=PATIENCE_MS)


def form(page: Page) -> Locator:
    """Open the form, as the reviewer does: the three dots, then Resume."""
    page.get_by_role("button", name="Open menu").first.click()
    page.get_by_role("menuitem", name="Resume").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Decision")).to_be_visible()
    return dialog


def fill(page: Page, dialog: Locator, decision: str, reviewer: str, reason: str) -> None:
    dialog.get_by_label("Decision").click()
    page.get_by_role("option", name=decision).click()
    dialog.get_by_label("Reviewer").fill(reviewer)
    dialog.get_by_label("Reason").fill(reason)


def press(dialog: Locator) -> None:
    dialog.get_by_role("button", name="Resume").click()


def send(dialog: Locator) -> None:
    """Send a complete form.

    Prefect's UI sends nothing while it complains, and looks again a second after a change: a complaint about what the
    form was before may come after it was pressed. Then nothing happens, and a reviewer presses again.
    """
    for _ in range(3):
        expect(dialog.get_by_text("is a required property")).to_have_count(0)
        press(dialog)
        with suppress(AssertionError):
            expect(dialog).to_be_hidden(timeout=15_000)
            return
    expect(dialog).to_be_hidden()


def at_gate(flow_run: str, number: int) -> None:
    """Wait until a run waits at its `number`-th gate; the page of a run that waits does not refresh by itself."""
    end = time.monotonic() + PATIENCE_MS / 1000
    while time.monotonic() < end:
        with get_client(sync_client=True) as client:
            found = client.read_flow_run(UUID(flow_run)).state
        if found.is_paused() and found.state_details.pause_key == f"gate-{number}":
            return
        time.sleep(0.5)
    raise AssertionError(f"the run is {found.name} at {found.state_details.pause_key}")


def opened(world: Any, tournament: str, members: list[str]) -> Case:
    case = world.challenge(tournament, members)
    reconcile_reviews(world.workspace)
    return world.case(case.id)


@pytest.fixture(scope="module")
def reigned(served: tuple[Any, Any]) -> tuple[Any, Any]:
    """The served world with a champion of one member."""
    world, _ = served
    first = world.challenge("t-ui-first", ["sage-clicks"])
    answer(world.workspace, first, Answer("approve", "ana", "the first", "command line", "first"))
    return served


def test_a_reviewer_reads_answers_is_asked_again_and_approves(reigned: tuple[Any, Any], page: Page) -> None:
    world, _ = reigned
    case = opened(world, "t-ui-second", ["sage-clicks", "minilm-l6"])
    page.goto(review_link(case.flow_run))
    expect(page.get_by_role("heading", level=1)).to_contain_text(
        f"Promote version {case.ensemble.version} over champion version", timeout=PATIENCE_MS
    )
    question = page.get_by_role("article").first
    expect(question).to_contain_text("Members in: minilm-l6 v1")
    expect(question.get_by_role("row", name="macro F1").first).to_contain_text("to")
    expect(question).to_contain_text("Without an answer the challenger is not promoted")
    approve = page.get_by_role("button", name="Approve")
    # The question, the numbers and the buttons stand on the first screen
    for part in (question.get_by_role("row", name="macro F1").first, approve):
        box = part.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] < 900
    expect(page.get_by_label("Code")).to_be_hidden()  # the policy names no reviewers
    picture(page, "review-page")
    approve.click()
    assert page.get_by_label("Your name").evaluate("field => field.validity.valueMissing")  # nothing was sent
    page.get_by_label("Your name").fill("ana")
    page.get_by_label("Reason").fill("  ")
    approve.click()
    # The reason is missing: asked again on the same page, with the complaint on top, and nowhere a word of success
    expect(page.get_by_text("It is not recorded yet")).to_be_visible()
    expect(question).to_contain_text("The reason is missing", timeout=PATIENCE_MS)
    expect(page.get_by_role("status").first).to_contain_text("Asked again")
    picture(page, "review-asked-again")
    page.get_by_label("Reason").fill("better in every locale, within budget")
    told_busy = []

    def busy(route: Route) -> None:
        told_busy.append(route.request.url)
        if len(told_busy) == 2:
            route.fetch()  # it arrives, and the browser hears that it did not
        route.fulfill(status=503, json={"exception_message": "Service Unavailable"})

    page.route("**/resume", busy)
    approve.click()
    expect(page.get_by_role("heading", name="Approved")).to_be_visible(timeout=PATIENCE_MS)
    assert len(told_busy) == 2
    page.unroute("**/resume")
    expect(page.get_by_text(f"version {case.ensemble.version} is champion, approved by ana")).to_be_visible()
    expect(page.get_by_role("button", name="Approve")).to_be_hidden()
    expect(question).to_contain_text("Members in: minilm-l6 v1")  # what was decided on stays readable
    picture(page, "review-approved")
    assert world.champion() == case.ensemble.version
    decided = world.case(case.id).decision
    assert (decided.reviewer, decided.reason) == ("ana", "better in every locale, within budget")
    page.get_by_role("link", name="The run in Prefect").click()
    state(page, "Approved")


def test_a_review_is_refused_after_server_and_worker_were_killed_and_restarted(
    reigned: tuple[Any, Any], page: Page
) -> None:
    world, prefect = reigned
    before = world.champion()
    case = opened(world, "t-ui-third", ["sage-clicks", "e5-small"])
    page.goto(run_link(case.flow_run))
    state(page, "Suspended")
    for name in ("worker", "server"):
        prefect.end(name)
    prefect.start_server()
    prefect.start_worker()
    page.goto(run_link(case.flow_run))
    state(page, "Suspended")
    dialog = form(page)
    expect(dialog).to_contain_text("Members in: e5-small v1")
    for field in ("Decision", "Reviewer", "Reason"):  # all of them are needed, and said to be
        expect(dialog.get_by_text(f"{field} (Optional)")).to_have_count(0)
    picture(page, "review-form")
    press(dialog)
    expect(page.get_by_text("is a required property").first).to_be_visible()
    picture(page, "review-form-complaint")
    fill(page, dialog, "refuse", "bob", "too slow for the page")
    send(dialog)
    state(page, "Refused")
    assert world.champion() == before
    assert world.case(case.id).decision.reason == "too slow for the page"


def test_a_link_logs_one_browser_in_and_leads_to_the_review(reigned: tuple[Any, Any], browser: Browser) -> None:
    world, prefect = reigned
    case = opened(world, "t-ui-login", ["sage-clicks", "minilm-l6", "e5-small"])
    run = review_link(case.flow_run)
    elsewhere: set[str] = set()
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        page = context.new_page()
        page.on("request", lambda request: elsewhere.add(request.url.split("/")[2]))
        page.goto(run)
        expect(page.get_by_label("Password of this server")).to_be_visible()  # nobody is logged in
        expect(page.get_by_text("Members in")).to_have_count(0)
        page.get_by_label("Password of this server").fill("wrong")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_text("does not know this password")).to_be_visible()
        link = login_link(prefect.settings.home, prefect.api, run)
        page.goto(link)
        page.wait_for_url(run)
        question = page.get_by_role("article").first
        expect(question).to_contain_text("Members in: e5-small v1", timeout=PATIENCE_MS)
        picture(page, "review-logged-in")
        # What is decided elsewhere while the page is open is told on it
        answer(world.workspace, case, Answer("refuse", "bob", "no", "command line", "elsewhere"))
        reconcile_reviews(world.workspace)
        expect(page.get_by_text("decided already: refuse by bob")).to_be_visible()
        expect(page.get_by_role("button", name="Refuse")).to_be_hidden()
    assert elsewhere == {prefect.api.split("/")[2]}
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(link)
        expect(page.get_by_role("status")).to_contain_text("A new one is printed by: tournament login")
        assert page.evaluate("localStorage.length") == 0
        assert link.partition("#")[2].partition(":")[0] not in page.url
        page.get_by_role("link", name="Go on").click()
        expect(page.get_by_label("Password of this server")).to_be_visible()
        here = prefect.api.removesuffix("/api")
        for crafted in (
            "https://evil.example/",
            "//evil.example/",
            "/\\evil.example",
            "javascript:alert(1)",
            "%E0%A4%A",
        ):
            page.goto("about:blank")
            page.goto(f"{here}{LOGIN_PATH}#x:{quote(crafted, safe='%')}")
            expect(page.get_by_role("link", name="Go on")).to_have_attribute("href", f"{here}/v2/")
