"""Allowed sources of pyfuncs: running one runs its code, so an operator lists the sources that are trusted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from esci_tournament.registry.errors import SpecError
from esci_tournament.tasks.families.pyfunc.spec import PyfuncSpec


def check_source(spec: PyfuncSpec, sources: Sequence[str]) -> None:
    """Check that an operator allowed the source of a pyfunc.

    Args:
        spec: the candidate.
        sources: folders, which allow everything below them, or prefixes of models:/ addresses, matched by whole names:
            "models:/team" allows "models:/team/1" but not "models:/teams/1".

    Raises:
        SpecError: if none of them holds it.
    """
    for source in sources:
        if spec.model.startswith("models:/"):
            if f"{spec.model}/".startswith(f"{source.rstrip('/')}/") and source.startswith("models:/"):
                return
        elif source and not source.startswith("models:/") and _resolved(spec.model).is_relative_to(_resolved(source)):
            return
    allowed = ", ".join(sources) or "none"
    raise SpecError(
        f"pyfunc {spec.name}: its source {spec.model} is not allowed (allowed: {allowed}), and running it runs its "
        "code; an operator allows it by the setting allowed_pyfunc_sources"
    )


def _resolved(path: str) -> Path:
    return Path(path).expanduser().resolve()
