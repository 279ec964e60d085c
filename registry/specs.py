"""The specs of candidates; each family of candidates has a spec class of its own."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from esci_tournament.registry.errors import SpecError
from esci_tournament.registry.plugins import families, spec_class


class Strict(BaseModel):
    """A frozen model that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NamedSpec(Strict):
    """What the specs of all families share; each derives its own from it, with a field `family` that names it.

    Attributes:
        PATHS: The fields, dotted when they stand in the recipe, that may hold a file or folder: a relative one in a
            candidates file starts at that file, and its content belongs to the identity of the candidate.
    """

    PATHS: ClassVar[tuple[str, ...]] = ()

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$", description="name of the registered model")
    description: str = ""
    seed: int | None = Field(None, ge=0, description="seed of this candidate; default: the tournament's")

    if TYPE_CHECKING:  # each family's spec has it as a field, with its own name as the only value and the default

        @property
        def family(self) -> str:
            """Name of the family."""

    def digest(self) -> str:
        """Return a SHA-256 over all that changes what is learnt: every field but name and description.

        Fields at their default are left out, so that a release of the product with more fields still recognises the
        candidates that were registered with this one. A default that changes its meaning needs a new code version of
        the stage `train` (:data:`esci_tournament.registry.stages.CODE_VERSIONS`).

        Returns:
            64 hexadecimal digits.
        """
        content = self.model_dump(mode="json", exclude={"name", "description"}, exclude_defaults=True)
        content["family"] = getattr(self, "family", "")
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def paths(self) -> list[str]:
        """Return the files and folders that the spec names, there or not, in the order of its `PATHS`."""
        content = self.model_dump()
        values = (owner.get(key) for owner, key in (_owner(content, name) for name in self.PATHS))
        return [str(value) for value in values if value is not None]


CandidateSpec = NamedSpec  # the spec of a candidate, of whatever family


def parse_spec(content: dict[str, Any], origin: str = "spec") -> CandidateSpec:
    """Return the spec that `content` describes.

    Args:
        content: `family`, `name` and the other fields of the family's spec.
        origin: Where it stands, as error messages begin.

    Returns:
        An instance of the family's spec class.

    Raises:
        SpecError: If a key is unknown or a value wrong; the message names key, value and origin.
    """
    family = content.get("family")
    found = spec_class(family) if isinstance(family, str) else None
    if found is None:
        known = ", ".join(families()) or "none, because esci-tournament is not installed: install it again"
        raise SpecError(f"{origin}: family is {family!r}; it must be one of {known}")
    try:
        spec: NamedSpec = found.model_validate(content)
    except ValidationError as error:
        raise SpecError(_first_complaint(error, origin)) from error
    return spec


def read_specs(path: str | Path) -> list[CandidateSpec]:
    """Read the candidates of a TOML file; relative paths in it start at that file.

    Args:
        path: A file of `[[candidate]]` tables, each with what :func:`parse_spec` takes.

    Returns:
        The specs, in the order of the file.

    Raises:
        SpecError: If the file is missing or no TOML, holds no candidate or an unknown key, or repeats a name.
    """
    path = Path(path)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"candidates file {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"candidates file {path} is no TOML: {error}") from error
    unknown = set(document) - {"candidate"}
    if unknown or not isinstance(document.get("candidate"), list) or not document["candidate"]:
        found = f"unknown key {sorted(unknown)[0]!r}" if unknown else "no [[candidate]] table"
        raise SpecError(f"candidates file {path}: {found}; it holds one [[candidate]] table for each candidate")
    specs = []
    for number, table in enumerate(document["candidate"], 1):
        if not isinstance(table, dict) or not isinstance(table.get("recipe", {}), dict):
            raise SpecError(
                f"{path}, candidate {number}: the candidate and its recipe are tables (got {table!r}); "
                "write [[candidate]] and [candidate.recipe]"
            )
        _resolve_paths(table, path.parent)
        specs.append(parse_spec(table, f"{path}, candidate {number} ({table.get('name', 'without a name')})"))
    names = [spec.name for spec in specs]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise SpecError(f"candidates file {path}: the name {repeated[0]!r} stands {names.count(repeated[0])} times")
    return specs


def spec_paths(spec: NamedSpec) -> list[Path]:
    """Return the files and folders that a spec points to and that exist here, in the order of its `PATHS`."""
    places = [Path(path).expanduser() for path in spec.paths()]
    return [place for place in places if place.exists()]


def _resolve_paths(table: dict[str, Any], start: Path) -> None:
    found = spec_class(str(table.get("family")))
    for name in found.PATHS if found else ():
        owner, key = _owner(table, name)
        if isinstance(value := owner.get(key), str) and value and (start / value).exists():
            owner[key] = str((start / value).resolve())


def _owner(content: dict[str, Any], dotted: str) -> tuple[dict[str, Any], str]:
    *above, key = dotted.split(".")
    for name in above:
        content = content.get(name) or {}
    return content, key


def _first_complaint(error: ValidationError, origin: str) -> str:
    first = error.errors()[0]
    named = [str(part) for part in first["loc"]]
    key = ".".join(part for part in named if "[" not in part) or "spec"  # with a bracket it is a type of a union
    if first["type"] == "extra_forbidden":
        return f"{origin}: unknown key {key!r}; remove it or correct its spelling"
    return f"{origin}: {key}: {first['msg']} (got {first.get('input')!r})"
