"""Requests and answers over HTTP. Requests are validated by these models; answers are only documented by them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from esci_tournament.registry.labels import LABELS

MOST_PRODUCTS = 1000
LONGEST_QUERY = 1000
TEXTS = ("title", "brand", "color", "bullets", "description")

Want = Literal["labels", "probabilities", "contributions"]
Locale = Literal["us", "es", "jp"]
Label = Literal["E", "S", "C", "I"]

_PAGE = {
    "query": "red desk lamp",
    "locale": "us",
    "products": [{"id": "B07XJ8C8F5"}, {"title": "Velo desk lamp, red", "brand": "Velo", "color": "red"}],
}


class _Strict(BaseModel):
    """A part of a request: types are not converted, and unknown keys are refused so that a typo is noticed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _whole(value: Any) -> Any:
    """Return 50 for 50.0: JSON does not distinguish the two."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Product(_Strict):
    """A product: an id that the catalogue knows, or its text. Text in a request replaces all the catalogue's text."""

    id: str | None = Field(None, max_length=200, description="id in the catalogue; with text it is only echoed")
    title: str | None = Field(None, description="title")
    brand: str | None = Field(None, description="brand")
    color: str | None = Field(None, description="colour")
    bullets: str | None = Field(None, description="bullet points")
    description: str | None = Field(None, description="description")


class ScoreRequest(_Strict):
    """A page: one query and up to 1,000 products."""

    query: Annotated[str, Field(min_length=1, max_length=LONGEST_QUERY, pattern=r"\S", description="the query")]
    locale: Locale = Field(description="locale of the query and of the products")
    products: list[Product] = Field(min_length=1, max_length=MOST_PRODUCTS, description="1 to 1,000 products")
    want: Want = Field(
        "probabilities",
        description="labels are the fastest; contributions say what each member added, and are the slowest",
    )
    deadline_ms: Annotated[int | None, BeforeValidator(_whole)] = Field(
        None, ge=1, le=60_000, description="ms this page may take; then the members that are done answer it"
    )


class Champion(BaseModel):
    """The ensemble that scored."""

    name: str
    version: int


class ItemError(BaseModel):
    """Why one product has no label; it does not concern the others of the page."""

    code: Literal["unknown_product", "empty_product", "not_scored"]
    message: str


class ProductAnswer(BaseModel):
    """One product's answer; those of a page are in the order of the request."""

    id: str | None = Field(description="the id of the request")
    label: Label | None = Field(
        None,
        description="what the ensemble decides, not always the most probable class; null after an error",
    )
    probabilities: dict[Label, float] | None = Field(None, description="probability of each class; absent for `labels`")
    contributions: dict[str, dict[Label, float]] | None = Field(
        None, description="what each member adds to each class's raw score; with `base` they add up to it"
    )
    cached: bool = Field(description="whether the label came from the cache")
    error: ItemError | None = Field(None, description="why there is no label")


class ScoreAnswer(BaseModel):
    """The answer to a page."""

    champion: Champion
    products: list[ProductAnswer]
    base: dict[Label, float] | None = Field(None, description="expected raw score of each class, for `contributions`")
    members: list[str] = Field(description="members that scored products of this page; none when all were cached")
    missing: list[str] = Field(description="members whose answer is missing: late, failed or fenced off")
    complete: bool = Field(description="whether every product was answered by the whole ensemble")
    cache_hits: int
    milliseconds: float = Field(description="time in the scorer")


class ChampionAnswer(BaseModel):
    """The champion that serves."""

    name: str
    version: int
    tournament: str
    members: list[str]
    data: str = Field(description="version of the data whose products it knows")
    edges: str | None = Field(description="version of newer data whose edges the graph networks use")
    since: str = Field(description="when this scorer loaded it, UTC")
    device: str = Field(description="what the members compute on")
    replicas: int = Field(description="processes that compute, each with all members")
    products: int = Field(description="products in the catalogue")


class Health(BaseModel):
    """Whether the process lives."""

    alive: bool


class MemberState(BaseModel):
    """The state of a member."""

    name: str
    fenced: bool = Field(description="it failed or hangs, and is not asked until it has recovered")
    reason: str


class Readiness(BaseModel):
    """Whether pages can be answered; and what is wrong, for those who may score."""

    ready: bool
    champion: int | None = Field(None, description="version that serves")
    members: list[MemberState] = Field(default_factory=list)
    queued_pairs: int = Field(0, description="pairs that wait for the members or are being scored")
    trouble: str = Field(
        "", description='why the ledger or MLflow could not be read at the last look, "" when they could'
    )
    refused: dict[str, str] = Field(default_factory=dict, description="champions that failed their warm-up, and why")
    looked_s_ago: float | None = Field(None, description="seconds since the ledger was last read")


class Problem(BaseModel):
    """Why there is no answer."""

    error: str = Field(description="a code for programs")
    message: str = Field(description="a sentence for people")
    fields: list[FieldProblem] = Field(default_factory=list, description="what is wrong with which field")


class FieldProblem(BaseModel):
    """What is wrong with one field."""

    field: str = Field(description='where, such as "products.3.title"; "" is the body itself')
    message: str


Problem.model_rebuild()

REQUEST_EXAMPLES: dict[str, dict[str, Any]] = {
    "page": {"summary": "Products by id and by text", "value": _PAGE},
    "labels": {
        "summary": "Labels alone, within 50 ms",
        "value": {**_PAGE, "want": "labels", "deadline_ms": 50},
    },
    "contributions": {"summary": "With the members' contributions", "value": {**_PAGE, "want": "contributions"}},
}

ANSWER_EXAMPLE: dict[str, Any] = {
    "champion": {"name": "esci-ensemble", "version": 3},
    "products": [
        {
            "id": "B07XJ8C8F5",
            "label": "E",
            "probabilities": dict(zip(LABELS, (0.8123, 0.1411, 0.0217, 0.0249), strict=True)),
            "cached": True,
        },
        {
            "id": None,
            "label": None,
            "cached": False,
            "error": {"code": "empty_product", "message": "no id and no text"},
        },
    ],
    "members": [],
    "missing": [],
    "complete": True,
    "cache_hits": 1,
    "milliseconds": 0.41,
}
