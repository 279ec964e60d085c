"""Families of candidates that other distributions plug in, by entry points of the group `esci_tournament.families`."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from esci_tournament.registry.errors import SpecError

GROUP = "esci_tournament.families"


def plugged_in() -> dict[str, EntryPoint]:
    """Return family -> entry point of every family that an installed distribution offers; nothing is imported."""
    return {point.name: point for point in entry_points(group=GROUP)}


def load_family(family: str) -> Any:
    """Return the class of a plugged-in family: a candidate with `spec_class`, a spec whose family is that name.

    Raises:
        SpecError: if it cannot be imported, or is no such class; the message names the distribution.
    """
    point = plugged_in()[family]
    origin = f"family {family!r}, plugged in by {distribution_of(point)} as {point.value}"
    try:
        found = point.load()
    except Exception as error:  # whatever a plug-in's module raises while it is imported
        raise SpecError(f"{origin}: cannot be imported ({type(error).__name__}: {error}); install it again") from error
    fields = getattr(getattr(found, "spec_class", None), "model_fields", {})
    if "family" not in fields or fields["family"].default != family:
        raise SpecError(
            f"{origin}: its class needs an attribute spec_class, a spec with `family: Literal[{family!r}] = {family!r}`"
        )
    missing = [
        name for name in ("fit", "predict_proba", "save", "load", "parameters") if not callable(getattr(found, name, 0))
    ]
    if missing:
        raise SpecError(f"{origin}: its class has no {missing[0]}; see tasks.families.protocol.Candidate")
    return found


def distribution_of(point: EntryPoint) -> str:
    """Return "name version" of the distribution that offers an entry point: part of its candidates' identity."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown distribution"
