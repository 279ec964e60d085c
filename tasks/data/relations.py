"""Define the kinds of edges that a graph may be built on, in one table.

A line in :data:`BUILT_IN`, or an entry point of the group :data:`GROUP` in another distribution, adds one.
"""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from esci_tournament.registry.errors import UsageError
from esci_tournament.registry.plugins import installed, release_of

GROUP = "esci_tournament.relations"


@dataclass(frozen=True)
class RelationType:
    """A kind of edges.

    Attributes:
        name: As specs name it.
        ends: "query" for edges from a query to a product, "product" for edges between products.
        actions: Events that are counted: of a query, or for products those of one session.
        judged: Whether each judged pair counts as an event; it was retrieved for its query.
        tabled: Relations of the edge table that are counted.
        catalogue: Whether its edges follow from the catalogue alone; no query stands behind such an edge.
        build: "module:function" that makes the edges, in place of counting; see
            :func:`esci_tournament.tasks.data.behaviour.edges`.
    """

    name: str
    ends: Literal["query", "product"]
    actions: tuple[str, ...] = ()
    judged: bool = False
    tabled: tuple[str, ...] = ()
    catalogue: bool = False
    build: str = ""

    @property
    def needs_log(self) -> bool:
        """Whether it has no edges without a log of behaviour."""
        return not self.build and not (self.judged and len(self.actions) == 1)

    @property
    def of_sessions(self) -> bool:
        """Whether an edge may come from a session, so that the queries behind it are not known."""
        return self.ends == "product" and not self.catalogue

    def builder(self) -> Any:
        """Return the function that `build` names; its module is imported only now.

        Returns:
            A function that takes a data set and returns a frame of edges, as
            :func:`esci_tournament.tasks.data.behaviour.edges` describes it.
        """
        return pkgutil.resolve_name(self.build)


_FROM_QUERIES = ("impressions", "clicks", "adds", "purchases")
BUILT_IN = (
    RelationType("impressions", "query", ("impression",), judged=True, tabled=("impressions",)),
    RelationType("clicks", "query", ("click",), tabled=("clicks",)),
    RelationType("adds", "query", ("add",), tabled=("adds",)),
    RelationType("purchases", "query", ("purchase",), tabled=("purchases",)),
    RelationType("all", "query", ("impression", "click", "add", "purchase"), judged=True, tabled=_FROM_QUERIES),
    RelationType("bought_together", "product", ("purchase",), tabled=("bought_together",)),
    RelationType("same_session", "product", ("click", "add", "purchase"), tabled=("same_session",)),
    RelationType("same_brand", "product", catalogue=True, build="esci_tournament.tasks.data.behaviour:same_brand"),
)
_BY_NAME = {one.name: one for one in BUILT_IN}
TABLED = tuple(one.name for one in BUILT_IN if one.tabled == (one.name,))  # those that an edge table may name
WITHOUT_LOG = tuple(one.name for one in BUILT_IN if not one.needs_log)


def names() -> tuple[str, ...]:
    """Return the names of all relations, those of this product first; nothing is imported."""
    return (*_BY_NAME, *sorted(set(installed(GROUP)) - set(_BY_NAME)))


def relation_type(name: str) -> RelationType:
    """Return the relation of a name; one that is plugged in is imported.

    Args:
        name: One of :func:`names`.

    Returns:
        The relation.

    Raises:
        UsageError: If there is no such relation, or the distribution that offers it cannot be imported or names
            something else.

    Example:
        >>> relation_type("clicks").actions
        ('click',)
    """
    if name in _BY_NAME:
        return _BY_NAME[name]
    if name not in installed(GROUP):
        raise UsageError(f"relation {name!r} is not known; it must be one of {', '.join(names())}")
    origin = f"relation {name!r}, plugged in by {release_of(GROUP, name)}"
    try:
        found = installed(GROUP)[name].load()
    except Exception as error:  # whatever a plug-in's module raises while it is imported
        raise UsageError(f"{origin}: cannot be imported ({type(error).__name__}: {error}); install it again") from error
    if not isinstance(found, RelationType) or found.name != name:
        raise UsageError(f"{origin}: its entry point names no RelationType of that name")
    return found


def release_of_relation(name: str) -> str:
    """Return "name version" of the distribution that offers a relation, "" for one of this product."""
    return "" if name in _BY_NAME else release_of(GROUP, name)


def _known(name: str) -> str:
    if name not in names():
        raise ValueError(f"it must be one of {', '.join(names())}")
    return name


Relation = Annotated[str, AfterValidator(_known)]  # the name of a relation, in a spec
