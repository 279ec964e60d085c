"""What goes into a request and what comes back, with the names that the scorer's OpenAPI document has.

Fields that a newer scorer adds are ignored; those that may be absent have their default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypedDict

Label = Literal["E", "S", "C", "I"]
Locale = Literal["us", "es", "jp"]
Want = Literal["labels", "probabilities", "contributions"]


class Product(TypedDict, total=False):
    """A product of a request: an id that the catalogue knows, or texts, which replace all of the catalogue's."""

    id: str | None
    title: str | None
    brand: str | None
    color: str | None
    bullets: str | None
    description: str | None


@dataclass(frozen=True, slots=True)
class Champion:
    """The ensemble that scored.

    Attributes:
        name: of the registered model.
        version: its version in MLflow.
    """

    name: str
    version: int

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


@dataclass(frozen=True, slots=True)
class ItemError:
    """Why one product has no label; it does not concern the others of the page.

    Attributes:
        code: unknown_product, empty_product or not_scored.
        message: a sentence for people.
    """

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Labelled:
    """The answer for one product.

    Attributes:
        id: the id of the request, None when it had none.
        label: what the ensemble decides, not always the most probable class; None when there is an error.
        cached: whether the label came from the scorer's cache.
        probabilities: class -> probability; None when only labels were asked for, or there is an error.
        contributions: candidate id -> class -> what the member added to the class's raw score; None unless asked for.
        error: why there is no label, None when there is one.
    """

    id: str | None
    label: Label | None
    cached: bool
    probabilities: dict[Label, float] | None = None
    contributions: dict[str, dict[Label, float]] | None = None
    error: ItemError | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """The answer to a page.

    Attributes:
        champion: the ensemble that answered all of it.
        products: one answer for each product, in the order of the request.
        members: candidate ids that scored products of this page; empty when all were cached.
        missing: candidate ids whose answer is missing, because they were late, failed or are fenced off.
        complete: whether every product was answered by the whole ensemble.
        cache_hits: number of products whose label came from the cache.
        milliseconds: time in the scorer, ms.
        base: class -> expected raw score, to which contributions add up; None unless contributions were asked for, and
            where the parts of a page that was sent in several requests differ in it, because members are missing.
    """

    champion: Champion
    products: tuple[Labelled, ...]
    members: tuple[str, ...]
    missing: tuple[str, ...]
    complete: bool
    cache_hits: int
    milliseconds: float
    base: dict[Label, float] | None = None

    @property
    def labels(self) -> list[Label | None]:
        """The label of each product, None where there is an error."""
        return [one.label for one in self.products]

    @property
    def problems(self) -> dict[int, ItemError]:
        """Position in the request -> why that product has no label."""
        return {number: one.error for number, one in enumerate(self.products) if one.error is not None}

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self:
        """Return the answer in a parsed document of `POST /v1/score`.

        Args:
            content: the document, `ScoreAnswer` in the OpenAPI document.

        Returns:
            The answer.

        Raises:
            KeyError: if it is no such document, as TypeError and AttributeError.
        """
        return cls(
            champion=Champion(content["champion"]["name"], content["champion"]["version"]),
            products=tuple([_labelled(one) for one in content["products"]]),
            members=tuple(content["members"]),
            missing=tuple(content["missing"]),
            complete=content["complete"],
            cache_hits=content["cache_hits"],
            milliseconds=content["milliseconds"],
            base=content.get("base"),
        )


@dataclass(frozen=True, slots=True)
class ChampionFacts:
    """The champion that serves.

    Attributes:
        name: of the registered model.
        version: its version in MLflow.
        tournament: id of the tournament that made it.
        members: candidate ids.
        data: version of the data whose products it knows.
        edges: version of newer data whose edges the graph networks use, None for none.
        since: when this scorer loaded it, ISO 8601, UTC.
        device: what the members compute on.
        replicas: processes that compute, each with all members.
        products: number of products in the catalogue.
    """

    name: str
    version: int
    tournament: str
    members: tuple[str, ...]
    data: str
    since: str
    device: str
    replicas: int
    products: int
    edges: str | None = None

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self:
        """Return the facts in a parsed document of `GET /v1/champion`.

        Args:
            content: the document, `ChampionAnswer` in the OpenAPI document.

        Returns:
            The facts.

        Raises:
            KeyError: if it is no such document, as TypeError.
        """
        known = {name: content[name] for name in cls.__slots__ if name not in ("members", "edges")}
        return cls(**known, members=tuple(content["members"]), edges=content.get("edges"))


@dataclass(frozen=True, slots=True)
class MemberState:
    """The state of a member.

    Attributes:
        name: candidate id.
        fenced: whether it failed or hangs, and is not asked until it has recovered.
        reason: why, "" when it is not fenced off.
    """

    name: str
    fenced: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether pages can be answered; all but `ready` is told only to those who may score.

    Attributes:
        ready: whether pages can be answered.
        champion: version that serves, None for none.
        members: their states.
        queued_pairs: pairs that wait for the members or are being scored.
        trouble: why the ledger or MLflow could not be read at the last look, "" when they could.
        refused: champion id -> why it failed its warm-up.
        looked_s_ago: seconds since the ledger was last read, None when it has not been.
    """

    ready: bool
    champion: int | None = None
    members: tuple[MemberState, ...] = ()
    queued_pairs: int = 0
    trouble: str = ""
    refused: dict[str, str] = field(default_factory=dict)
    looked_s_ago: float | None = None

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self:
        """Return the state in a parsed document of `GET /readyz`.

        Args:
            content: the document, `Readiness` in the OpenAPI document.

        Returns:
            The state.

        Raises:
            KeyError: if it is no such document, as TypeError.
        """
        told = {name: content[name] for name in cls.__slots__ if name in content and name != "members"}
        members = (MemberState(one["name"], one["fenced"], one["reason"]) for one in content.get("members", ()))
        return cls(**{"ready": content["ready"], **told}, members=tuple(members))


def _labelled(content: Mapping[str, Any]) -> Labelled:
    error = content.get("error")
    return Labelled(
        content["id"],
        content.get("label"),
        content["cached"],
        content.get("probabilities"),
        content.get("contributions"),
        None if error is None else ItemError(error["code"], error["message"]),
    )
