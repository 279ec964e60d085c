"""From a request's body to a page: what is no page is refused quickly, with the field that is wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import ValidationError

from esci_tournament.deployments.scorer import schemas
from esci_tournament.registry.complaints import kind_in_words
from esci_tournament.registry.foreign import shown
from esci_tournament.registry.spelling import did_you_mean

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_MOST_COMPLAINTS = 20
_QUOTED = 60  # characters of a wrong text that are quoted
# A body may not have more of these: a page of 1,000 products has a small part of them, its texts included. Each stands
# for a Python object, which takes ten times the memory of its text, and time in which nobody else is answered.
_MOST = {b'"': 200_000, b"{": 100_000, b"[": 100_000, b",": 1_000_000}
_OF_PAGE, _OF_PRODUCT = (frozenset(model.model_fields) for model in (schemas.ScoreRequest, schemas.Product))
_TAKES = {
    name: kind_in_words(field.annotation, field.metadata)
    for model in (schemas.ScoreRequest, schemas.Product)
    for name, field in model.model_fields.items()
} | {
    "query": f"text of 1 to {schemas.LONGEST_QUERY:,} characters that are not all blank",
    "products": f"a list of 1 to {schemas.MOST_PRODUCTS:,} objects",
}


class Refused(Exception):
    """Raised when a request is refused because its body cannot be used.

    Args:
        status: HTTP status of the response.
        error: Code for programs, such as "body_too_large".
        message: A sentence for people.
        fields: One mapping for each wrong field, with the keys field and message.
    """

    def __init__(self, status: int, error: str, message: str, fields: list[dict[str, str]] | None = None) -> None:
        super().__init__(message)
        self.status, self.error, self.fields = status, error, fields or []


def read_page(body: bytes) -> schemas.ScoreRequest:
    """Return the page in a body.

    Args:
        body: JSON, UTF-8.

    Returns:
        The page, validated.

    Raises:
        Refused: naming each wrong field (422), or because of too many products (413).

    Example:
        >>> read_page(b'{"query": "lamp", "locale": "fr", "products": [{"id": "B1"}]}')
        Traceback (most recent call last):
        ...
        esci_tournament.deployments.scorer.reading.Refused: field locale: it must be one of "us", "es", "jp" (got 'fr')
    """
    for sign, most in _MOST.items():
        if len(body) > most and body.count(sign) > most:
            fields = [{"field": "", "message": f"more than {most} times {sign.decode()}: that is no page"}]
            raise Refused(422, "invalid_request", _sentence(fields), fields)
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        fields = [{"field": "", "message": f"Invalid JSON: {error}"[:200]}]
        raise Refused(422, "invalid_request", _sentence(fields), fields) from None
    _check_sizes(content)
    try:
        return schemas.ScoreRequest.model_validate(content)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False)[:_MOST_COMPLAINTS]
        fields = [{"field": ".".join(map(str, one["loc"]))[:200], "message": _problem(one)} for one in wrong]
        raise Refused(422, "invalid_request", _sentence(fields), fields) from None


def _check_sizes(content: Any) -> None:
    """Refuse a page with too many products or with unknown fields: pydantic makes an object of each complaint.

    Raises:
        Refused: for too many products (413), or unknown fields (422).
    """
    if not isinstance(content, dict):
        return
    unknown = _unknown(content, _OF_PAGE, "")
    products = content.get("products")
    if isinstance(products, list):
        if len(products) > schemas.MOST_PRODUCTS:
            message = f"a page has {schemas.MOST_PRODUCTS} products at most; send several pages"
            raise Refused(413, "too_many_products", message)
        for number, product in enumerate(products):
            if isinstance(product, dict) and not product.keys() <= _OF_PRODUCT:
                unknown += _unknown(product, _OF_PRODUCT, f"products.{number}.")
                if len(unknown) >= _MOST_COMPLAINTS:
                    break
    if unknown:
        raise Refused(422, "invalid_request", _sentence(unknown), unknown[:_MOST_COMPLAINTS])


def _unknown(content: dict[str, Any], known: frozenset[str], at: str) -> list[dict[str, str]]:
    found = []
    for name in content:
        if name not in known:
            advice = did_you_mean(name[:200], known) or f"; {', '.join(sorted(known))} are known"
            found.append({"field": f"{at}{name}"[:200], "message": f"unknown field{advice}"})
            if len(found) == _MOST_COMPLAINTS:
                break
    return found


def _sentence(fields: list[dict[str, str]]) -> str:
    first = fields[0]
    where = f"field {first['field']}" if first["field"] else "the body"
    return f"{where}: {first['message']}"


def _problem(error: ErrorDetails) -> str:
    """Return what is wrong with a field, and what it takes, in words of JSON."""
    name = next((part for part in reversed(error["loc"]) if isinstance(part, str)), "")
    takes = _TAKES.get(name, "an object with query, locale and products")
    if error["loc"] and isinstance(error["loc"][-1], int):
        takes = f"an object with any of {', '.join(sorted(_OF_PRODUCT))}"
    if error["type"] == "missing":
        return f"it is missing; it is {takes}"
    return f"it must be {takes} (got {_given(error['input'])})"


def _given(value: Any) -> str:
    """Return a value of JSON as a message quotes it: what is long or holds others by its kind alone."""
    if isinstance(value, list | dict):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value):,}"
    if isinstance(value, str):
        return shown(value) if len(value) <= _QUOTED else f"text of {len(value):,} characters"
    return json.dumps(value) if value is None or isinstance(value, bool) else shown(value)
