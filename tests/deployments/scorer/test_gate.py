"""Who may ask: the key in the headers, its rate, and whoever guesses."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fastapi import Request

from esci_tournament.deployments.scorer.admission import Overloaded
from esci_tournament.deployments.scorer.gate import ONE_REQUEST_BYTES, Gate, Stranger
from esci_tournament.deployments.scorer.keys import Keys


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "keys.json")


def request(**headers: str) -> Request:
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": fields})


def admit(gate: Gate, *requests: Request) -> list[str]:
    """Return what became of requests that come at once."""

    async def one(asked: Request) -> str:
        try:
            await gate.admit(asked)
        except (Stranger, Overloaded) as refused:
            return type(refused).__name__
        return "in"

    async def go() -> list[str]:
        return list(await asyncio.gather(*map(one, requests)))

    return asyncio.run(go())


@pytest.mark.parametrize(("is_open", "expected"), [(True, "in"), (False, "Stranger")])
def test_before_there_is_a_key_everybody_is_let_in_where_the_gate_is_open(
    keys: Keys, is_open: bool, expected: str
) -> None:
    assert admit(Gate(keys, None, 1, open=is_open), request()) == [expected]


def test_a_key_is_taken_from_either_header_and_from_nowhere_else(keys: Keys) -> None:
    _, text = keys.create("shop")
    gate = Gate(keys, None, 1, open=True)
    asked = [
        request(x_api_key=text),
        request(authorization=f"bearer  {text} "),
        request(authorization=f"Basic {text}"),
        request(cookie=f"x-api-key={text}"),
        request(x_api_key="", authorization=f"Bearer {text}x"),
        request(),
    ]
    assert admit(gate, *asked) == ["in", "in", "Stranger", "Stranger", "Stranger", "Stranger"]


def test_a_key_that_is_revoked_lets_nobody_in_at_once(keys: Keys) -> None:
    _, text = keys.create("shop")
    gate = Gate(keys, None, 1, open=True)
    assert admit(gate, request(x_api_key=text)) == ["in"]
    keys.revoke("shop")
    assert admit(gate, request(x_api_key=text)) == ["Stranger"]


def test_each_key_has_a_rate_of_its_own_or_that_of_the_setting(keys: Keys) -> None:
    _, quick = keys.create("quick", rate_per_s=3)
    _, plain = keys.create("plain")
    gate = Gate(keys, rate_per_s=1, burst_s=1, open=False)
    answers = admit(gate, *[request(x_api_key=text) for text in (quick, plain) for _ in range(5)])
    assert answers == ["in"] * 3 + ["Overloaded"] * 2 + ["in"] + ["Overloaded"] * 4


def test_of_many_who_guess_at_once_most_are_sent_away_before_scrypt_is_asked(keys: Keys) -> None:
    key, _ = keys.create("shop")
    gate = Gate(keys, None, 1, open=False)

    async def go() -> tuple[int, int]:
        guesses = [request(x_api_key=f"esci_{key.id}_{number:043d}") for number in range(40)]
        tasks = [asyncio.create_task(gate.admit(guess)) for guess in guesses]
        await asyncio.sleep(0)
        refused = [task for task in tasks if task.done()]
        waiting = [task for task in tasks if not task.done()]
        for task in waiting:
            task.cancel()
        assert all(isinstance(task.exception(), Overloaded) for task in refused)
        return len(waiting), len(refused)

    assert asyncio.run(go()) == (16, 24)


def test_a_large_request_counts_as_several(keys: Keys) -> None:
    gate = Gate(keys, rate_per_s=4.0, burst_s=2.0, open=False)
    _, text = keys.create("rival")
    large = request(x_api_key=text, content_length=str(20 * ONE_REQUEST_BYTES))
    assert admit(gate, large) == ["in"]
    gate.charge(large, 28 * ONE_REQUEST_BYTES)
    with pytest.raises(Overloaded) as refused:
        asyncio.run(gate.admit(request(x_api_key=text)))
    assert 5 <= refused.value.retry_after_s <= 6
    _, other = keys.create("shop")
    assert admit(gate, *[request(x_api_key=other, content_length=str(28 * ONE_REQUEST_BYTES))] * 4) == [
        "in",
        *["Overloaded"] * 3,
    ]
