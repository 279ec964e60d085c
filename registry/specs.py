"""The specs of candidates; each family of candidates has a spec class of its own."""

from __future__ import annotations

import hashlib
import json
import math
import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from esci_tournament.registry.complaints import Complaint, complaints_of, failure_of, kind_in_words, placed
from esci_tournament.registry.errors import SpecError
from esci_tournament.registry.foreign import shown
from esci_tournament.registry.plugins import families, spec_class
from esci_tournament.registry.spelling import did_you_mean
from esci_tournament.registry.toml_lines import line_at, lines_of

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


class _OfAnyFamily(NamedSpec):
    """What can be said of a spec whose family is not known."""

    model_config = ConfigDict(extra="ignore")


CandidateSpec = NamedSpec  # the spec of a candidate, of whatever family


def parse_spec(content: dict[str, Any], origin: str = "spec") -> CandidateSpec:
    """Return the spec that `content` describes.

    Args:
        content: `family`, `name` and the other fields of the family's spec.
        origin: Where it stands, as error messages begin.

    Returns:
        An instance of the family's spec class.

    Raises:
        SpecError: If a key is unknown or missing, or a value wrong; the message has each of them, in one line.
    """
    spec, complaints = _read(content)
    if spec is None:
        error = failure_of(SpecError, placed(complaints, candidate=_name_of(content)), origin)
        raise error
    return spec


def parse_specs(contents: Sequence[dict[str, Any]]) -> list[CandidateSpec]:
    """Return the specs that some tables describe, as :func:`parse_spec` does.

    Args:
        contents: One dict a candidate.

    Returns:
        The specs, in the same order.

    Raises:
        SpecError: If one of them is wrong, or a name stands twice; the message has everything that is wrong with any.
    """
    specs, complaints = _read_all(contents, _unchecked)
    if complaints:
        error = failure_of(SpecError, [one for _, one in complaints], "candidates", lines=True)
        raise error
    return specs


def read_specs(path: str | Path, check: Callable[[CandidateSpec], None] | None = None) -> list[CandidateSpec]:
    """Read the candidates of a TOML file; relative paths in it start at that file.

    Args:
        path: A file of `[[candidate]]` tables, each with what :func:`parse_spec` takes.
        check: Called with each spec that can be read; a SpecError that it raises is told with what else is wrong.

    Returns:
        The specs, in the order of the file.

    Raises:
        SpecError: If the file is missing or no TOML, holds no candidate or an unknown key, repeats a name, or a spec is
            wrong. The message has everything that is wrong with the file, each with its line where that is known.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except OSError as error:
        raise SpecError(f"candidates file {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, no Unicode, an integer of 10,000 digits
        raise SpecError(f"candidates file {path} is no TOML: {error}") from error
    lines, tables = lines_of(text), document.get("candidate")
    complaints = [
        Complaint(key, f"unknown key {shown(key)}; the file holds one [[candidate]] table for each candidate")
        for key in document
        if key != "candidate"
    ]
    complaints = [replace(one, line=line_at(lines, (one.key,))) for one in complaints]
    if not isinstance(tables, list) or not tables:
        problem = "no [[candidate]] table; the file holds one for each candidate"
        complaints.append(Complaint("candidate", problem, line=line_at(lines, ("candidate",))))
        tables = []
    for table in tables:
        if isinstance(table, dict) and isinstance(table.get("recipe", {}), dict):
            _resolve_paths(table, path.parent)
    specs, found = _read_all(tables, check or _unchecked)
    for number, one in found:
        place = ("candidate", number - 1, *(one.key.split(".") if one.key else ()))
        complaints.append(replace(one, line=line_at(lines, place)))
    if complaints:
        wrong = failure_of(SpecError, placed(complaints, file=str(path)), str(path), lines=True)
        raise wrong
    return specs


def _unchecked(_: CandidateSpec) -> None:
    """Let every spec pass."""


def _read_all(
    contents: Sequence[Any], check: Callable[[CandidateSpec], None]
) -> tuple[list[CandidateSpec], list[tuple[int, Complaint]]]:
    """Return the specs of tables, and what is wrong with them, each with the number of its candidate, from 1."""
    specs: list[CandidateSpec] = []
    complaints: list[tuple[int, Complaint]] = []
    numbers: dict[str, int] = {}
    for number, content in enumerate(contents, 1):
        who = f"candidate {number} ({_name_of(content)})"
        spec, wrong = _read(content)
        name = content.get("name") if isinstance(content, dict) else None
        if isinstance(name, str) and numbers.setdefault(name, number) != number:
            times = sum(isinstance(one, dict) and one.get("name") == name for one in contents)
            problem = f"the name {shown(name)} stands {times} times, first for candidate {numbers[name]}; change one"
            wrong = [*wrong, Complaint("name", problem)]
        if spec is not None:
            specs.append(spec)
            try:
                check(spec)
            except SpecError as error:
                wrong = [*wrong, Complaint("", str(error))]
        complaints += [(number, one) for one in placed(wrong, candidate=who)]
    return specs, complaints


def _name_of(content: Any) -> str:
    name = content.get("name") if isinstance(content, dict) else None
    return shown(name)[1:-1] if isinstance(name, str) and name else "without a name"


def _read(content: Any) -> tuple[CandidateSpec | None, list[Complaint]]:
    """Return the spec that a table describes; or None and everything that is wrong with it."""
    if not isinstance(content, dict) or not isinstance(content.get("recipe", {}), dict):
        key = "recipe" if isinstance(content, dict) else ""
        advice = "write [[candidate]] and [candidate.recipe]"
        return None, [Complaint(key, f"the candidate and its recipe are tables (got {shown(content)}); {advice}")]
    known = _out_of_bounds(content)
    if any(not place for place, _ in known):
        return None, [Complaint("", f"spec: {why}") for place, why in known if not place]
    family = content.get("family")
    found = spec_class(family) if isinstance(family, str) else None
    if found is None:
        names = families()
        listed = ", ".join(names) or "none, because esci-tournament is not installed: install it again"
        hint = did_you_mean(family, names) if isinstance(family, str) else ""
        wrong = Complaint("family", f"family is {shown(family)}; it must be one of {listed}{hint}")
        return None, [wrong, *complaints_of(content, _OfAnyFamily, known)]
    known += [one for one in _booleans(content, found) if one[0] not in dict(known)]
    if complaints := complaints_of(content, found, known):
        return None, complaints
    spec: NamedSpec = found.model_validate(content)
    return spec, []


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


def _out_of_bounds(content: Any, place: tuple[Any, ...] = (), depth: int = 0) -> list[tuple[tuple[Any, ...], str]]:
    """Return where values of a spec are out of the bounds of all values, and why; () is the spec itself."""
    if isinstance(content, dict | list | tuple):
        if depth == DEEPEST:
            return [(place, f"nested deeper than {DEEPEST} levels")]
        if len(content) > MOST_ENTRIES:
            return [(place, f"{len(content):,} entries; {MOST_ENTRIES:,} are allowed")]
        if isinstance(content, dict):
            found = [one for name in content for one in _of_value(name, place)]
            found += [
                one for name, value in content.items() for one in _out_of_bounds(value, (*place, name), depth + 1)
            ]
            # Below a recipe, a key is told as a whole
            return [(where[:2], why) for where, why in found] if depth == 0 else found
        return [(place, why) for value in content for _, why in _out_of_bounds(value, place, depth + 1)][:1]
    return _of_value(content, place)


def _of_value(content: Any, place: tuple[Any, ...]) -> list[tuple[tuple[Any, ...], str]]:
    if isinstance(content, float) and not math.isfinite(content):
        return [(place, f"it must be a finite number (got {content})")]
    if isinstance(content, int) and abs(content) > LARGEST_NUMBER:
        return [(place, f"an integer of {content.bit_length()} bits; {LARGEST_NUMBER} is the largest allowed")]
    if isinstance(content, str) and len(content) > LONGEST_TEXT:
        return [(place, f"a text of {len(content):,} characters; {LONGEST_TEXT:,} are allowed")]
    return []


def _booleans(
    content: dict[str, Any], model: type[BaseModel], above: tuple[Any, ...] = ()
) -> list[tuple[tuple[Any, ...], str]]:
    """Return the keys of a table, and of tables in it, that are true or false and are no place for that."""
    found = []
    for name, field in model.model_fields.items():
        value, annotation = content.get(name), field.annotation
        if isinstance(value, dict) and isinstance(annotation, type) and issubclass(annotation, BaseModel):
            found += _booleans(value, annotation, (*above, name))
        elif _holds_boolean(value) and not _may_be_boolean(annotation):
            takes = kind_in_words(annotation, field.metadata) or "another value"
            found.append(((*above, name), f"it must be {takes}, and is no boolean (got {shown(value)})"))
    return found


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
