"""Each refusal of the real scorer is an error of its own class, with the scorer's own message."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from esci_tournament_client import (
    AuthError,
    BusyError,
    DeadlineError,
    FieldProblem,
    MembersError,
    RequestError,
    Retry,
    ScorerError,
    UnavailableError,
)
from tests.deployments.client.conftest import ask
from tests.deployments.scorer.conftest import NAMES

ONCE = {"retry": Retry(0)}


def refusal(
    stand: Any, kind: type[ScorerError], products: Any = ("P1",), locale: Any = "us", **more: Any
) -> ScorerError:
    with pytest.raises(ScorerError) as raised:
        ask(stand, lambda client: client.score("lamp", locale, products, **more), **ONCE)
    assert type(raised.value) is kind
    return raised.value


def test_a_wrong_field_is_named(stand: Any) -> None:
    error = refusal(stand, RequestError, ["P1", {"title": "lamp", "colour": "red"}])
    assert (error.status, error.code) == (422, "invalid_request")
    assert error.fields == (FieldProblem("products.1.colour", "unknown field; did you mean color?"),)
    assert str(error) == "422 invalid_request: field products.1.colour: unknown field; did you mean color?"
    assert refusal(stand, RequestError, []).fields[0].field == "products"
    assert refusal(stand, RequestError, locale="fr").fields[0].field == "locale"


def test_who_has_no_key_and_who_asks_too_often_is_told_apart(stand: Any) -> None:
    _, secret = stand.gate.keys.create("shop", 0.5)
    assert refusal(stand, AuthError).code == "unauthorized"

    async def twice(client: Any) -> None:
        await client.score("lamp", "us", ["P1"])
        await client.score("lamp", "us", ["P1"])

    with pytest.raises(BusyError, match="this key may send") as raised:
        ask(stand, twice, api_key=secret, **ONCE)
    assert raised.value.retry_after_s is not None
    assert raised.value.retry_after_s >= 1
    assert secret not in str(raised.value)


def test_members_that_fail_or_are_late_are_told_apart(stand: Any) -> None:
    for name in NAMES:
        stand.candidate(name).fails = True
    assert "every member of" in str(refusal(stand, MembersError))
    for name in NAMES:
        stand.candidate(name).fails, stand.candidate(name).delay_s = False, 0.3
    assert refusal(stand, DeadlineError, deadline_ms=20).code == "deadline"


def test_no_champion_is_said_to_pass(stand: Any) -> None:
    champion, stand.scorer.active.champion = stand.champion, None
    error = refusal(stand, UnavailableError)
    assert (error.status, error.code, error.retry_after_s) == (503, "no_champion", 2)

    async def states(client: Any) -> tuple[bool, bool]:
        before = await client.ready()
        stand.scorer.active.champion = champion
        return before, await client.ready()

    assert ask(stand, states) == (False, True)


def test_an_error_survives_the_way_between_processes() -> None:
    error = BusyError("later", 429, "too_many_requests", [FieldProblem("query", "no")], 3.0)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is BusyError
    assert (str(copy), copy.status, copy.code) == ("later", 429, "too_many_requests")
    assert (copy.fields, copy.retry_after_s) == (error.fields, 3.0)
