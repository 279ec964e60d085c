"""The client's types are those of the scorer's OpenAPI document, so that neither changes alone."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from typing import Any

import pytest

from esci_tournament_client import (
    Champion,
    ChampionFacts,
    Client,
    FieldProblem,
    ItemError,
    Labelled,
    MemberState,
    Page,
    Product,
    Readiness,
)
from esci_tournament_client.exchange import MOST_PRODUCTS
from tests.deployments.client.conftest import ask

ANSWERS = {
    "Champion": Champion,
    "ItemError": ItemError,
    "ProductAnswer": Labelled,
    "ScoreAnswer": Page,
    "ChampionAnswer": ChampionFacts,
    "MemberState": MemberState,
    "Readiness": Readiness,
    "FieldProblem": FieldProblem,
}
ELSEWHERE = {
    "Health": "of /healthz, which is for what restarts the process",
    "Problem": "becomes a ScorerError; test_errors.py has its fields",
    "Product": "of a request",
    "ScoreRequest": "of a request",
}


@pytest.fixture
def schemas(stand: Any) -> dict[str, Any]:
    return dict(stand.app.openapi()["components"]["schemas"])


def may_be_none(hint: Any) -> bool:
    return types.NoneType in typing.get_args(hint)


def nullable(schema: dict[str, Any]) -> bool:
    return {"type": "null"} in schema.get("anyOf", [])


def test_every_schema_of_the_document_has_its_type(schemas: dict[str, Any]) -> None:
    assert set(schemas) == set(ANSWERS) | set(ELSEWHERE)


def test_the_client_asks_for_every_path_but_those_of_operators(stand: Any) -> None:
    assert set(stand.app.openapi()["paths"]) == {"/v1/score", "/v1/champion", "/readyz", "/healthz", "/metrics"}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_has_every_field_of_its_schema_and_is_none_where_that_may_be_null(
    schemas: dict[str, Any], name: str
) -> None:
    hints = typing.get_type_hints(ANSWERS[name])
    properties = schemas[name]["properties"]
    assert {one.name for one in dataclasses.fields(ANSWERS[name])} == set(properties)
    assert {one for one in hints if may_be_none(hints[one])} == {one for one in properties if nullable(properties[one])}


def test_a_request_can_have_every_field_and_every_value_of_its_schema(schemas: dict[str, Any]) -> None:
    request = schemas["ScoreRequest"]["properties"]
    assert set(inspect.signature(Client.score).parameters) - {"self"} == set(request)
    assert Product.__optional_keys__ == set(schemas["Product"]["properties"])
    hints = typing.get_type_hints(Client.score)
    for name in ("locale", "want"):
        assert list(typing.get_args(hints[name])) == request[name]["enum"], name
    assert request["want"]["default"] == inspect.signature(Client.score).parameters["want"].default
    assert request["products"]["maxItems"] == MOST_PRODUCTS


def test_an_answer_is_read_as_it_was_given(stand: Any) -> None:
    products = ["P1", {"title": "Velo lamp", "brand": None}, "nobody", {}]
    page = ask(stand, lambda client: client.score("red lamp", "us", products, want="contributions"))
    assert page.champion == Champion("esci-ensemble", 1)
    assert str(page.champion) == "esci-ensemble/1"
    assert [one.id for one in page.products] == ["P1", None, "nobody", None]
    assert {place: one.code for place, one in page.problems.items()} == {2: "unknown_product", 3: "empty_product"}
    assert page.labels[2:] == [None, None]
    first = page.products[0]
    assert first.probabilities is not None
    assert sum(first.probabilities.values()) == pytest.approx(1, abs=1e-3)
    assert first.contributions is not None
    assert page.base is not None
    assert set(first.contributions) == set(page.members) == {"alpha/1", "beta/1", "gamma/1"}
    raw = {key: page.base[key] + sum(one[key] for one in first.contributions.values()) for key in page.base}
    assert max(raw, key=raw.__getitem__) == max(first.probabilities, key=first.probabilities.__getitem__)


def test_labels_alone_have_no_probabilities_and_the_champion_and_its_health_are_told(stand: Any) -> None:
    page, facts, health = ask(stand, everything)
    assert (page.complete, page.products[0].probabilities, page.base) == (True, None, None)
    assert (facts.version, facts.members, facts.products) == (1, ("alpha/1", "beta/1", "gamma/1"), 300)
    assert (health.ready, health.champion, [one.fenced for one in health.members]) == (True, 1, [False] * 3)


async def everything(client: Any) -> tuple[Page, ChampionFacts, Readiness]:
    return await client.score("red lamp", "us", ["P1"], want="labels"), await client.champion(), await client.health()


def test_fields_that_a_newer_scorer_adds_are_ignored() -> None:
    content = {"ready": True, "champion": 3, "mood": "good", "members": []}
    assert Readiness.of(content) == Readiness(True, 3)
    with pytest.raises(KeyError):
        Readiness.of({"champion": 3})
