"""The OpenAPI document says what FastAPI cannot see, and its examples work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from esci_tournament.deployments.scorer.openapi import answers
from tests.deployments.scorer.conftest import ask, get


def test_the_examples_of_the_document_work(stand):
    document = get(stand, "/openapi.json").json()
    examples = document["paths"]["/v1/score"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    assert len(examples) == 3
    for example in examples.values():  # a busy machine may take longer than the 50 ms of one of them
        assert ask(stand, example["value"] | {"deadline_ms": 60_000})[0].status_code == 200


def references(value: Any) -> Iterator[str]:
    """Yield every reference in a document."""
    if isinstance(value, dict):
        if isinstance(reference := value.get("$ref"), str):
            yield reference
        value = list(value.values())
    for one in value if isinstance(value, list) else []:
        yield from references(one)


def test_what_the_document_refers_to_is_in_it(stand):
    document = stand.app.openapi()
    found = set(references(document))
    assert "#/components/schemas/ScoreRequest" in found
    for reference in found:
        place = document
        for name in reference.removeprefix("#/").split("/"):
            place = place[name]


def test_paths_that_need_a_key_say_so_and_no_others(stand):
    document = stand.app.openapi()
    operations = [(path, one) for path, methods in document["paths"].items() for one in methods.values()]
    guarded = [(path, operation) for path, operation in operations if "security" in operation]
    assert {path for path, _ in guarded} == {"/v1/score", "/v1/champion", "/metrics"}
    for path, operation in guarded:
        assert "401" in operation["responses"], path
        named = {name for way in operation["security"] for name in way}
        assert named == set(document["components"]["securitySchemes"])


def test_the_page_about_requests_loads_and_runs_nothing(stand):
    """S4.3: it loaded a script from another host."""
    page = get(stand, "/docs")
    assert page.status_code == 200
    assert "POST /v1/score" in page.text
    assert "red desk lamp" in page.text
    assert not any(word in page.text for word in ("<script", "src=", "http://", "https://"))
    assert page.headers["content-security-policy"].startswith("default-src 'none'")


def test_problems_are_documented_in_words_and_whoever_should_wait_is_told_how_long():
    documented = answers(401, 429, 503)
    assert all(one["description"] for one in documented.values())
    assert [status for status, one in documented.items() if "Retry-After" in one.get("headers", {})] == [429, 503]
