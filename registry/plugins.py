"""Entry points of installed distributions: families of candidates, also those of this product, and relations."""

from __future__ import annotations

import os
import pkgutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from esci_tournament.registry.errors import SpecError

GROUP = "esci_tournament.families"
OURS = "esci-tournament"  # the distribution whose families have no release of their own in a candidate's identity
REQUIRED = ("fit", "predict_proba", "save", "load", "parameters")


@dataclass(frozen=True)
class Family:
    """What an entry point may name in place of the class of a family, so that specs are read without importing it.

    Attributes:
        spec_class: The spec; its module imports nothing heavy.
        candidate: Where the class is, "module:Class".
    """

    spec_class: type
    candidate: str


def families() -> dict[str, EntryPoint]:
    """Return the entry points of all families that are installed; nothing is imported.

    A family of another distribution never takes the place of one of this product.

    Returns:
        Name of the family -> entry point, those of this product first.
    """
    return installed(GROUP)


def installed(group: str) -> dict[str, EntryPoint]:
    """Return the entry points of a group that distributions offer; nothing is imported.

    Args:
        group: Group of entry points, such as `GROUP`.

    Returns:
        Name -> entry point, those of this product first; their names cannot be taken by others.
    """
    return dict(_installed(group, tuple((place, _changed(place)) for place in sys.path)))


@lru_cache(maxsize=8)
def _installed(group: str, places: tuple[tuple[str, int], ...]) -> dict[str, EntryPoint]:
    """Return the entry points; reading the metadata of all distributions takes longer than reading a spec.

    Args:
        group: Of the entry points.
        places: What is searched for distributions, and when each was changed: something may be installed meanwhile.
    """
    points = entry_points(group=group)
    ours = {point.name: point for point in points if _is_ours(point)}
    return ours | {point.name: point for point in points if point.name not in ours}


def _changed(place: str) -> int:
    try:
        return os.stat(place or ".").st_mtime_ns
    except OSError:
        return 0


def spec_class(family: str) -> Any:
    """Return the spec class of a family.

    Args:
        family: Name of the family.

    Returns:
        A subclass of :class:`esci_tournament.registry.specs.NamedSpec`, None when there is no such family.

    Raises:
        SpecError: If the family cannot be imported or has no spec; the message names the distribution.
    """
    return _named(family).spec_class if family in families() else None


def load_family(family: str) -> Any:
    """Return the class of a family; its module is imported only now.

    Args:
        family: Name of a family that is installed.

    Returns:
        A class with the methods that `REQUIRED` lists.

    Raises:
        SpecError: If it cannot be imported, or is no such class; the message names the distribution.
    """
    found = _named(family)
    if not isinstance(found, Family):
        return found
    return _checked(_import(family, partial(pkgutil.resolve_name, found.candidate)), family)


def distribution_of(family: str) -> str:
    """Return the distribution that offers a family, which is part of its candidates' identity.

    Args:
        family: Name of the family.

    Returns:
        "name version"; "" for a family of this product, and for one that is not installed.
    """
    return release_of(GROUP, family)


def release_of(group: str, name: str) -> str:
    """Return the distribution that offers an entry point.

    Args:
        group: Group of the entry point.
        name: Its name.

    Returns:
        "name version"; "" for one of this product, and for one that is not installed.
    """
    point = installed(group).get(name)
    return "" if point is None or _is_ours(point) else _origin(point)


def _named(family: str) -> Any:
    """Return what the entry point of a family names: a :class:`Family`, or the class."""
    found = _import(family, families()[family].load)
    fields = getattr(getattr(found, "spec_class", None), "model_fields", {})
    if "family" not in fields or fields["family"].default != family:
        raise SpecError(
            f"{_place(family)}: its class needs an attribute spec_class, a spec with "
            f"`family: Literal[{family!r}] = {family!r}`"
        )
    return found if isinstance(found, Family) else _checked(found, family)


def _checked(found: Any, family: str) -> Any:
    abstract = getattr(found, "__abstractmethods__", ())
    for name in REQUIRED:
        if not callable(getattr(found, name, None)) or name in abstract:
            raise SpecError(f"{_place(family)}: its class has no {name}; see tasks.families.protocol.Candidate")
    return found


def _import(family: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except Exception as error:  # whatever a plug-in's module raises while it is imported
        raise SpecError(
            f"{_place(family)}: cannot be imported ({type(error).__name__}: {error}); install it again"
        ) from error


def _place(family: str) -> str:
    point = families()[family]
    return f"family {family!r}, plugged in by {_origin(point)} as {point.value}"


def _is_ours(point: EntryPoint) -> bool:
    return point.dist is not None and point.dist.name == OURS


def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown distribution"
