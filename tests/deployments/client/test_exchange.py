"""What is sent again and what is not, and how a page that is too large for one request becomes one answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from esci_tournament_client import (
    AnswerError,
    AnswerTimeoutError,
    BusyError,
    NoAnswerError,
    RequestError,
    Retry,
    ScorerError,
    UnavailableError,
)
from esci_tournament_client.exchange import MOST_BYTES, Outcome, Reply, Send, Steps, Wait, champion_facts, scored

FACTS = {
    "name": "e", "version": 1, "tournament": "t", "members": [], "data": "d", "edges": None,
    "since": "2026-11-27T00:00:00+00:00", "device": "cpu", "replicas": 1, "products": 3,
}  # fmt: skip
GOOD = Reply(200, {}, json.dumps(FACTS).encode())


USUAL = Retry()


def refused(status: int, **headers: str) -> Reply:
    content = {"error": "too_many_requests", "message": "later", "fields": []}
    return Reply(
        status, {name.replace("_", "-"): value for name, value in headers.items()}, json.dumps(content).encode()
    )


def drive(steps: Steps[Any], answer: Callable[[Send], Outcome]) -> tuple[Any, list[Send], list[float]]:
    """Return the result of an exchange, what was sent, and the seconds that were waited."""
    sent: list[Send] = []
    waits: list[float] = []
    outcome: Outcome = None
    while True:
        try:
            step = steps.send(outcome)
        except StopIteration as end:
            return end.value, sent, waits
        except ScorerError as error:
            return error, sent, waits
        if isinstance(step, Wait):
            waits.append(step.seconds)
            outcome = None
        else:
            sent.append(step)
            outcome = answer(step)


def asked(*outcomes: Outcome, retry: Retry = USUAL) -> tuple[Any, int, list[float]]:
    left = list(outcomes)
    result, sent, waits = drive(champion_facts(retry), lambda _: left.pop(0))
    return result, len(sent), waits


@pytest.mark.parametrize(
    "outcome",
    [
        refused(429),
        refused(503),
        Reply(503, {}, b"<html>no upstream</html>"),
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout(""),
        httpx.ReadError("reset"),
        httpx.RemoteProtocolError("Server disconnected without sending a response."),
    ],
    ids=str,
)
def test_what_may_go_better_is_sent_again(outcome: Outcome) -> None:
    result, sent, waits = asked(outcome, GOOD)
    assert (result.version, sent) == (1, 2)
    assert 0.05 <= waits[0] <= 0.15


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (httpx.ReadTimeout(""), AnswerTimeoutError),
        (httpx.PoolTimeout(""), AnswerTimeoutError),
        (httpx.LocalProtocolError("bad header"), NoAnswerError),
        (httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed"), NoAnswerError),
        (refused(422), RequestError),
        (refused(500), AnswerError),
        (Reply(200, {}, b"<html>hello</html>"), AnswerError),
        (Reply(200, {}, b'{"name": "e"}'), AnswerError),
        (Reply(301, {"location": "https://scorer/"}, b""), AnswerError),
        (Reply(404, {}, b"nothing here"), AnswerError),
    ],
    ids=str,
)
def test_what_cannot_go_better_is_sent_once(outcome: Outcome, kind: type[ScorerError]) -> None:
    result, sent, _ = asked(outcome, GOOD)
    assert (type(result), sent) == (kind, 1)
    assert str(result)


def test_a_page_that_breaks_connections_is_not_sent_a_third_time() -> None:
    broken = httpx.ReadError("reset")
    result, sent, _ = asked(broken, broken, GOOD)
    assert (type(result), sent) == (NoAnswerError, 2)
    assert "does the scorer run?" in str(result)


def test_the_scorer_says_how_long_to_wait_as_a_number_or_as_a_date() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)
    for said in ("2", date):
        _, sent, waits = asked(refused(503, retry_after=said), GOOD)
        assert sent == 2
        assert 1.5 <= waits[0] <= 3.2
    assert asked(refused(503, retry_after="soon"), GOOD)[2][0] <= 0.15


def test_waits_grow_and_end() -> None:
    result, sent, waits = asked(*[refused(503)] * 9, retry=Retry(4, 1.0, 60.0))
    assert (type(result), sent, len(waits)) == (UnavailableError, 5, 4)
    assert [0.5 <= wait / nominal <= 1.5 for wait, nominal in zip(waits, (1, 2, 4, 8), strict=True)] == [True] * 4
    result, sent, waits = asked(*[refused(503)] * 99, retry=Retry(10_000, 1.0, 5.0))
    assert sum(waits) <= 5
    assert sent < 12


def test_who_is_told_to_wait_longer_than_they_can_is_told_so_at_once() -> None:
    result, sent, waits = asked(refused(429, retry_after="30"), GOOD)
    assert (type(result), result.retry_after_s, sent, waits) == (BusyError, 30, 1, [])


class Answering:
    """Answers pages as a scorer does: so many products at most, and a champion that may change."""

    def __init__(self, most: int = 1000, champions: tuple[int, ...] = (1,)) -> None:
        self.most, self.champions, self.pages = most, list(champions), list[int]()
        self.late = 0  # number of the request that a member is late for

    def __call__(self, send: Send) -> Outcome:
        rows = json.loads(send.content or b"")["products"]
        self.pages.append(len(rows))
        if len(rows) > self.most:
            return refused(413)
        for place, one in enumerate(rows):
            if one.get("id") == "wrong":
                name = f"products.{place}.id"
                wrong = {"error": "invalid_request", "message": name, "fields": [{"field": name, "message": "no"}]}
                return Reply(422, {}, json.dumps(wrong).encode())
        version = self.champions.pop(0) if len(self.champions) > 1 else self.champions[0]
        late = len(self.pages) == self.late
        products = [{"id": one["id"], "label": "E", "cached": True} for one in rows]
        answer = {
            "champion": {"name": "e", "version": version}, "products": products, "members": [f"m{version}"],
            "missing": ["late"] * late, "complete": not late, "base": {"E": float(late)},
            "cache_hits": len(rows), "milliseconds": 1.0,
        }  # fmt: skip
        return Reply(200, {}, json.dumps(answer).encode())


def page_of(products: Any, answering: Answering) -> Any:
    return drive(scored("lamp", "us", products, "labels", None, Retry(0)), answering)[0]


IDS = [f"P{number}" for number in range(2500)]


def test_a_page_that_is_too_large_for_a_request_is_one_answer_in_its_order() -> None:
    answering = Answering()
    page = page_of(IDS, answering)
    assert answering.pages == [1000, 1000, 500]
    assert [one.id for one in page.products] == IDS
    assert (page.cache_hits, page.milliseconds, page.members) == (2500, 3.0, ("m1",))


def test_a_scorer_or_proxy_that_takes_less_gets_less() -> None:
    answering = Answering(most=300)
    assert [one.id for one in page_of(IDS, answering).products] == IDS
    assert answering.pages == [1000, 500, *[250] * 10]
    assert type(page_of(["P1"], Answering(most=0))) is RequestError


def test_large_texts_make_requests_of_fewer_products() -> None:
    answering = Answering()
    page_of([{"id": "P", "description": "x" * (MOST_BYTES // 3)}] * 5, answering)
    assert answering.pages == [2, 2, 1]


def test_one_champion_answers_all_of_a_page() -> None:
    answering = Answering(champions=(1, 1, 2))
    page = page_of(IDS, answering)
    assert (page.champion.version, page.members) == (2, ("m2",))
    assert answering.pages == [1000, 1000, 500, 1000, 1000]
    assert type(page_of(IDS, Answering(champions=tuple(range(99))))) is UnavailableError


def test_a_page_in_parts_says_so_when_a_member_missed_one_of_them() -> None:
    whole, part = Answering(), Answering()
    part.late = 2
    page, short = page_of(IDS, whole), page_of(IDS, part)
    assert (page.complete, page.missing, page.base) == (True, (), {"E": 0.0})
    assert (short.complete, short.missing, short.base) == (False, ("late",), None)


def test_a_field_is_named_by_its_place_in_the_whole_page() -> None:
    error = page_of([*IDS[:1200], "wrong"], Answering())
    assert error.fields[0].field == "products.1200.id"
    assert "products.1200.id" in str(error)


@pytest.mark.parametrize(
    ("products", "field"),
    [
        (["P1", {"title": float("nan")}], "products.1.title"),
        (["P1", {"title": b"lamp"}], "products.1.title"),
        ([{"id": "\ud800"}], "products.0.id"),
        ([7], "products.0"),
        ("P1", "products"),
    ],
)
def test_what_cannot_be_sent_is_named_before_anything_is(products: Any, field: str) -> None:
    answering = Answering()
    error = page_of(products, answering)
    assert (type(error), error.fields[0].field, answering.pages) == (RequestError, field, [])


def test_an_answer_of_another_length_is_not_taken_for_one() -> None:
    def short(send: Send) -> Outcome:
        reply = Answering()(send)
        assert isinstance(reply, Reply)
        content = json.loads(reply.content)
        return Reply(200, {}, json.dumps(content | {"products": content["products"][1:]}).encode())

    error = drive(scored("lamp", "us", ["P1", "P2"], "labels", None, Retry(0)), short)[0]
    assert type(error) is AnswerError
    assert "1 answers came for 2 products" in str(error)


def test_a_page_with_a_long_deadline_is_waited_for() -> None:
    _, sent, _ = drive(scored("lamp", "us", ["P1"], "labels", 30_000, Retry(0)), Answering())
    assert sent[0].least_timeout_s > 30
