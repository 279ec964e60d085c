"""What goes in and out over HTTP: a request is taken literally, an answer is described as it is."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from esci_tournament.deployments.scorer import schemas
from esci_tournament.deployments.scorer.catalogue import TEXTS
from esci_tournament.deployments.scorer.schemas import MOST_PRODUCTS, Product, ScoreAnswer, ScoreRequest
from esci_tournament.registry.labels import LABELS
from esci_tournament.tasks.data.dataset import LOCALES

PAGE: dict[str, Any] = {"query": "lamp", "locale": "us", "products": [{"id": "P1"}]}


def complaints(content: dict[str, Any]) -> set[str]:
    """Return the fields of a request that are wrong."""
    try:
        ScoreRequest.model_validate(content)
    except ValidationError as error:
        return {".".join(map(str, one["loc"])) for one in error.errors()}
    return set()


def test_classes_locales_and_texts_are_those_of_the_data() -> None:
    assert get_args(schemas.Label) == LABELS
    assert set(get_args(schemas.Locale)) == set(LOCALES)
    assert set(Product.model_fields) == {"id", *TEXTS} == {"id", *schemas.TEXTS}


def test_the_examples_are_what_they_are_examples_of() -> None:
    for example in schemas.REQUEST_EXAMPLES.values():
        ScoreRequest.model_validate(example["value"])
    answer = ScoreAnswer.model_validate(schemas.ANSWER_EXAMPLE)
    assert answer.model_dump(exclude_unset=True) == schemas.ANSWER_EXAMPLE


@pytest.mark.parametrize(
    ("number", "wrong"), [(0, True), (1, False), (MOST_PRODUCTS, False), (MOST_PRODUCTS + 1, True)]
)
def test_a_page_has_one_to_a_thousand_products(number: int, wrong: bool) -> None:
    assert complaints(PAGE | {"products": [{"id": "P1"}] * number}) == ({"products"} if wrong else set())


@given(
    st.one_of(st.integers(-10, 70_000), st.integers(-10, 70_000).map(float), st.floats(allow_nan=True), st.booleans())
)
def test_a_deadline_is_a_whole_number_of_milliseconds_up_to_a_minute_however_json_writes_it(value: float) -> None:
    whole = not isinstance(value, bool) and value == value and abs(value) != float("inf") and value == int(value)
    assert bool(complaints(PAGE | {"deadline_ms": value})) == (not (whole and 1 <= value <= 60_000))


@pytest.mark.parametrize("name", ["query", "locale", "products"])
def test_what_a_page_must_have_is_missed_by_name(name: str) -> None:
    assert complaints({key: value for key, value in PAGE.items() if key != name}) == {name}


def described(model: type[BaseModel]) -> set[str]:
    return {name for name, field in model.model_fields.items() if field.description}


def test_every_field_of_a_request_is_described() -> None:
    assert described(ScoreRequest) == set(ScoreRequest.model_fields)
    assert described(Product) == set(Product.model_fields)
