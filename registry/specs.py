"""The specs of candidates; each family of candidates has a spec class of its own."""

from __future__ import annotations

import hashlib
import json
import math
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from esci_tournament.registry.errors import SpecError
from esci_tournament.registry.foreign import shown
from esci_tournament.registry.plugins import families, spec_class

# Bounds of every value of every spec, plug-ins' too; a field's own bounds are narrower
LONGEST_TEXT = 10_000  # characters
LARGEST_NUMBER = 2**63 - 1
MOST_ENTRIES = 10_000  # of a list or table
LONGEST_NAME = 255  # characters; more is no name in MLflow's databases
DEEPEST = 16  # lists and tables in each other
# What a spec may name in MLflow's registry: one version, for ever
PINNED = re.compile(r"models:/([^/@:]+/[0-9]+|m-[0-9a-f]+)")
NOT_PINNED = "name one version, models:/NAME/VERSION or models:/m-ID: an alias may move"


class Strict(BaseModel):
    """A frozen model that refuses keys it does not know, numbers that are not finite, and booleans as numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=LONGEST_TEXT)

    @model_validator(mode="before")
    @classmethod
    def _booleans_are_no_numbers(cls, content: Any) -> Any:
        """Refuse True and False where the field has no place for them; pydantic takes them for 1 and 0."""
        for name, field in cls.model_fields.items():
            value = content.get(name) if isinstance(content, dict) else None
            if _holds_boolean(value) and not _may_be_boolean(field.annotation):
                raise ValueError(f"{name} is no boolean")
        return content


class NamedSpec(Strict):
    """What the specs of all families share; each derives its own from it, with a field `family` that names it.

    Attributes:
        PATHS: The fields, dotted when they stand in the recipe, that may hold a file or folder: a relative one in a
            candidates file starts at that file, and its content belongs to the identity of the candidate.
    """

    PATHS: ClassVar[tuple[str, ...]] = ()

    name: str = Field(max_length=LONGEST_NAME, description="name of the registered model")
    description: str = ""
    seed: int | None = Field(None, ge=0, le=2**32 - 1, description="seed of this candidate; default: the tournament's")

    @field_validator("name")
    @classmethod
    def _registered_name(cls, name: str) -> str:
        """Take the names that MLflow takes, so that a model keeps the one its owners gave it."""
        if not name.strip():
            raise ValueError("a name is not empty")
        if name in (".", "..") or any(letter in name for letter in "/:"):
            raise ValueError("MLflow has no models of this name; leave out / and :")
        if not name.isprintable() or name != name.strip():
            raise ValueError("a name is one line of printable characters, without spaces at its ends")
        if "'" in name and '"' in name:
            raise ValueError("MLflow cannot search for a name with both kinds of quotation marks; leave one out")
        return name

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
        raise SpecError(f"{origin}: family is {shown(family)}; it must be one of {known}")
    if complaint := _out_of_bounds(content):
        raise SpecError(f"{origin}: {complaint}")
    try:
        spec: NamedSpec = found.model_validate(content)
    except ValidationError as error:
        raise SpecError(_first_complaint(error, origin, found)) from error
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
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, no Unicode, an integer of 10,000 digits
        raise SpecError(f"candidates file {path} is no TOML: {error}") from error
    unknown = set(document) - {"candidate"}
    if unknown or not isinstance(document.get("candidate"), list) or not document["candidate"]:
        found = f"unknown key {sorted(unknown)[0]!r}" if unknown else "no [[candidate]] table"
        raise SpecError(f"candidates file {path}: {found}; it holds one [[candidate]] table for each candidate")
    specs = []
    for number, table in enumerate(document["candidate"], 1):
        if not isinstance(table, dict) or not isinstance(table.get("recipe", {}), dict):
            raise SpecError(
                f"{path}, candidate {number}: the candidate and its recipe are tables (got {shown(table)}); "
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


def _out_of_bounds(content: Any, key: str = "", depth: int = 0) -> str:
    """Return why a value of a spec is out of the bounds of all values, in a sentence; "" if it is not."""
    place = key or "spec"
    if isinstance(content, dict | list | tuple):
        if depth == DEEPEST:
            return f"{place}: nested deeper than {DEEPEST} levels"
        if len(content) > MOST_ENTRIES:
            return f"{place}: {len(content):,} entries; {MOST_ENTRIES:,} are allowed"
        if isinstance(content, dict):
            inner = [(f"{key}.{shown(name)[1:-1]}".lstrip("."), value) for name, value in content.items()]
            inner += [(f"a key of {place}", name) for name in content]
        else:
            inner = [(place, value) for value in content]
        return next((found for name, value in inner if (found := _out_of_bounds(value, name, depth + 1))), "")
    if isinstance(content, float) and not math.isfinite(content):
        return f"{place}: Input should be a finite number (got {content})"
    if isinstance(content, int) and abs(content) > LARGEST_NUMBER:
        return f"{place}: an integer of {content.bit_length()} bits; {LARGEST_NUMBER} is the largest allowed"
    if isinstance(content, str) and len(content) > LONGEST_TEXT:
        return f"{place}: a text of {len(content):,} characters; {LONGEST_TEXT:,} are allowed"
    return ""


def _holds_boolean(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_boolean, value.values()))
    return isinstance(value, bool) or (isinstance(value, list | tuple) and any(map(_holds_boolean, value)))


def _may_be_boolean(annotation: Any) -> bool:
    """Tell whether a field's type has a place for a boolean; a nested model looks after its own fields."""
    if annotation in (bool, Any, object) or isinstance(annotation, bool):
        return True
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return True
    return any(map(_may_be_boolean, get_args(annotation)))


def _meaning(model: type[BaseModel], key: str) -> str:
    """Return in brackets what a field is for, "" when it does not say."""
    field = model.model_fields.get(key)
    return f" ({field.description})" if field is not None and field.description else ""


def _first_complaint(error: ValidationError, origin: str, model: type[BaseModel]) -> str:
    # A key that is not known is often another one misspelt, which is missing then
    found = error.errors()
    first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
    named = [str(part) for part in first["loc"]]
    key = ".".join(part for part in named if "[" not in part) or "spec"  # with a bracket it is a type of a union
    if first["type"] == "missing":
        return f"{origin}: {shown(key)[1:-1]} is missing{_meaning(model, key)}"
    if first["type"] == "extra_forbidden":
        return f"{origin}: unknown key {shown(key)}; remove it or correct its spelling"
    return f"{origin}: {shown(key)[1:-1]}: {first['msg']} (got {shown(first.get('input'))})"
