"""What is wrong with values that somebody wrote, in words: every key at once, with what would be right.

Specs of candidates and settings are checked by pydantic, whose own messages quote regular expressions and types of
Python. These say what the key takes, with an example and, for a name that is not known, what may have been meant.
"""

from __future__ import annotations

import datetime as dt
import json
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from esci_tournament.registry.errors import TournamentError
from esci_tournament.registry.foreign import shown
from esci_tournament.registry.spelling import did_you_mean, nearest

MOST, MOST_IN_LINE = 50, 10  # complaints of one message; what is wrong throughout says how many there are
_ROUNDS = 5  # a key that was left out because it is wrong may have hidden what is wrong with others
_WORDS_LISTED = 12

Place = tuple[Any, ...]
Failure = TypeVar("Failure", bound=TournamentError)


@dataclass(frozen=True)
class Complaint:
    """One thing that is wrong.

    Attributes:
        key: Dotted name of the key, "" where it is the whole.
        problem: What is wrong and what would be right, in a sentence that begins with the key.
        candidate: Name of the candidate, or "candidate 2" of a file for one without a name; "" for a setting.
        file: The file, "" for none.
        line: Line of the file, from 1; None where it is not known.
    """

    key: str
    problem: str
    candidate: str = ""
    file: str = ""
    line: int | None = None

    def __str__(self) -> str:
        """Return line, candidate and problem."""
        place = ", ".join(filter(None, [f"line {self.line}" if self.file and self.line else "", self.candidate]))
        return f"{place}: {self.problem}" if place else self.problem


def failure_of(kind: type[Failure], complaints: Sequence[Complaint], origin: str = "", lines: bool = False) -> Failure:
    """Return an error that tells complaints, and has them as its `complaints`.

    Args:
        kind: Class of the error.
        complaints: At least one.
        origin: Where they stand, as the message begins; "" where each says so itself.
        lines: Whether each has a line of its own, with its place; otherwise `origin` is the place of all, and the
            message is one line.

    Returns:
        The error.
    """
    most = MOST if lines else MOST_IN_LINE
    told = [str(one) if lines and origin else one.problem for one in complaints[:most]]
    begin = f"{origin}: " if origin else ""
    if len(told) == 1:
        error = kind(f"{begin}{told[0]}")
    else:
        more = f"{len(complaints) - most} more" if len(complaints) > most else ""
        if lines:
            rows = [*(f"  {one}" for one in told), *([f"  and {more}"] if more else [])]
        else:
            rows = [*(f"({number}) {one};" for number, one in enumerate(told, 1)), *([f"and {more}"] if more else [])]
        gap = "\n" if lines else " "
        error = kind(f"{begin}{len(complaints)} things are wrong:{gap}{gap.join(rows)}".rstrip(";"))
    error.complaints = tuple(complaints)
    return error


def placed(complaints: Iterable[Complaint], **where: Any) -> list[Complaint]:
    """Return complaints with more of where they stand: `candidate`, `file` or `line`."""
    return [replace(one, **where) for one in complaints]


def as_documents(error: BaseException) -> list[dict[str, Any]]:
    """Return the complaints of an error as a `--json` document has them; [] for one that has none."""
    return [asdict(one) for one in getattr(error, "complaints", ())]


def complaints_of(
    content: Mapping[str, Any], model: type[BaseModel], known: Sequence[tuple[Place, str]] = ()
) -> list[Complaint]:
    """Return everything that a model has to say against values.

    Args:
        content: Key -> value, tables in each other.
        model: What they are to make.
        known: Places that are known to be wrong, and why: they are told with the others, and not checked again.

    Returns:
        The complaints, each key once, in the order in which the keys stand in `content`; [] if nothing is wrong.
    """
    found: dict[Place, Complaint] = {
        place: Complaint(_dotted(place), f"{shown(_dotted(place))[1:-1] or 'spec'}: {why}") for place, why in known
    }
    meant: set[Place] = set()  # what unknown keys were probably to be
    for _ in range(_ROUNDS):
        try:
            model.model_validate(_without(content, found))
        except ValidationError as error:
            fresh = _found(error, model, set(found), meant)
        else:
            break
        fresh = {place: one for place, one in fresh.items() if place not in found}
        found |= fresh
        if not fresh or () in fresh:
            break
    order = _order(content)
    return [one for _, one in sorted(found.items(), key=lambda item: order.get(item[0], len(order)))]


def _found(
    error: ValidationError, model: type[BaseModel], wrong: set[Place], meant: set[Place]
) -> dict[Place, Complaint]:
    """Return the complaint of every place that pydantic found something at, and note what unknown keys were to be."""
    by_place: dict[Place, list[Any]] = {}
    for one in error.errors(include_url=False):
        by_place.setdefault(_place(one["loc"], model), []).append(one)
    told = {}
    unknown = {place for place, ones in by_place.items() if ones[0]["type"] == "extra_forbidden"}
    for place in unknown:
        owner = _model_at(model, place[:-1])
        fields = list(owner.model_fields) if owner else []
        told[place] = _unknown(place, fields)
        meant |= {(*place[:-1], name) for name in nearest(str(place[-1]), fields, 1)}
    for place, ones in by_place.items():
        if place in unknown or (ones[0]["type"] == "missing" and place in wrong | meant):
            continue  # it is there: under another name, or left out because it is wrong
        whole = not place or (_model_at(model, place) is not None and ones[0]["type"] == "value_error")
        if whole and any(_is_field(one, place, model) for one in wrong | meant):
            continue  # about several keys, of which one is wrong: it may be about that
        told[place] = _of_field(place, ones, _model_at(model, place[:-1]))
    return told


def _is_field(wrong: Place, owner: Place, model: type[BaseModel]) -> bool:
    """Tell whether a wrong place is a field of the table at `owner`."""
    table = _model_at(model, owner)
    return wrong[:-1] == owner and bool(wrong) and table is not None and wrong[-1] in table.model_fields


def _unknown(place: Place, fields: Sequence[str]) -> Complaint:
    key, hint = _dotted(place), did_you_mean(str(place[-1]), fields, _dotted((*place[:-1], "")))
    advice = hint or f"; remove it or correct its spelling: {_listed(fields)} are known"
    return Complaint(key, f"unknown key {shown(key)}{advice}")


def _of_field(place: Place, errors: Sequence[Any], owner: type[BaseModel] | None) -> Complaint:
    key = _dotted(place)
    # Of the branches of a union: what our own code says, else what the value is compared with
    first = next((one for one in errors if one["type"] == "value_error"), errors[0])
    name = next((part for part in reversed(place) if isinstance(part, str)), "")
    field = owner.model_fields.get(name) if owner else None
    meaning = f" ({field.description})" if field is not None and field.description else ""
    takes = _takes(field)
    if first["type"] == "missing":
        return Complaint(key, f"{shown(key)[1:-1]} is missing{meaning}{f'; it is {takes}' if takes else ''}")
    secret = field is not None and SecretStr in (field.annotation, *get_args(field.annotation))
    got = "" if secret else f" (got {shown(first.get('input'))})"
    label = f"{shown(key)[1:-1]}: " if key else ""
    if first["type"] == "value_error":
        said = str(first["msg"]).removeprefix("Value error, ")
        return Complaint(key, f"{label}{said}{got if key else ''}")
    if not takes:
        return Complaint(key, f"{label or 'spec: '}it is not {_kind_of_error(first['type'])}{meaning}{got}")
    hint = ""
    if isinstance(given := first.get("input"), str) and field is not None:
        hint = did_you_mean(given, _choices(field.annotation))
    return Complaint(key, f"{label}it must be {takes}{hint}{meaning}{got}")


def _kind_of_error(kind: str) -> str:
    return {"model_type": "a table", "dict_type": "a table"}.get(kind, "a value that this key takes")


def _takes(field: FieldInfo | None) -> str:
    """Return what a field takes, in words, with an example; "" when there are no words for it."""
    if field is None:
        return ""
    words = kind_in_words(field.annotation, field.metadata)
    default = field.default
    if not words or isinstance(default, BaseModel) or words.startswith(("one of", "true")):
        return words
    if isinstance(default, bool | int | float | str) and default != "":
        return f"{words}, such as {json.dumps(default, ensure_ascii=False)}"
    return words


def kind_in_words(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """Return which values a type takes, in words; "" when there are none for it.

    Args:
        annotation: The type.
        metadata: What limits it: pydantic's and annotated_types' bounds.

    Example:
        >>> kind_in_words(Literal["us", "es"]), kind_in_words(tuple[int, ...]), kind_in_words(bool | None)
        ('one of "us", "es"', 'a list, each a whole number', 'true or false')
    """
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        more = [bound for one in args[1:] for bound in (one.metadata if isinstance(one, FieldInfo) else [one])]
        return kind_in_words(args[0], [*metadata, *more])
    if origin is Literal:
        return (
            f"one of {_listed([json.dumps(one) for one in args], len(args))}" if len(args) > 1 else json.dumps(args[0])
        )
    if origin in (Union, types.UnionType):
        kinds = [kind_in_words(one, metadata) for one in args if one is not type(None)]
        return " or ".join(dict.fromkeys(kinds)) if all(kinds) else ""
    if origin in (tuple, list, set, frozenset):
        each = kind_in_words(args[0]) if args else ""
        most = next((one.max_length for one in metadata if getattr(one, "max_length", None)), None)
        return f"a list{f' of at most {most}' if most else ''}{f', each {each}' if each else ''}"
    if origin is dict or annotation is dict:
        key, value = (kind_in_words(one) for one in args) if args else ("", "")
        return (
            "a table"
            + (f" whose keys are {key}" if key and key != "text" else "")
            + (f", each {value}" if value else "")
        )
    if annotation is bool:
        return "true or false"
    if annotation in (int, float):
        return f"a {'whole ' if annotation is int else ''}number{_bounds(metadata)}"
    if isinstance(annotation, type):
        if issubclass(annotation, BaseModel):
            return "a table"
        if issubclass(annotation, Path):
            return "a path"
        if issubclass(annotation, dt.datetime):
            return "a moment with its zone, such as 2026-01-31T12:00:00+00:00"
        if issubclass(annotation, str | SecretStr):
            most = next((one.max_length for one in metadata if getattr(one, "max_length", None)), None)
            return f"text of at most {most} characters" if most else "text"
    return ""


def _bounds(metadata: Sequence[Any]) -> str:
    found = {name: getattr(one, name) for one in metadata for name in ("ge", "gt", "le", "lt") if hasattr(one, name)}
    low = f"at least {found['ge']:,}" if "ge" in found else f"above {found['gt']:,}" if "gt" in found else ""
    high = f"at most {found['le']:,}" if "le" in found else f"below {found['lt']:,}" if "lt" in found else ""
    if "ge" in found and "le" in found:
        return f" from {found['ge']:,} to {found['le']:,}"
    return f" {' and '.join(filter(None, [low, high]))}".rstrip()


def _choices(annotation: Any) -> list[str]:
    """Return the words that a type has a place for."""
    if get_origin(annotation) is Literal:
        return [one for one in get_args(annotation) if isinstance(one, str)]
    return [word for one in get_args(annotation) for word in _choices(one)]


def _listed(words: Sequence[str], most: int = _WORDS_LISTED) -> str:
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def _place(location: Place, model: type[BaseModel]) -> Place:
    """Return the keys of a pydantic location: without the types of a union, and without what is inside a value."""
    place: list[Any] = []
    table: type[BaseModel] | None = model
    for part in location:
        if table is None:  # inside a list or a table without names of its own: the key as a whole is told
            break
        place.append(part)
        table = _model_of(table.model_fields.get(str(part)))
    return tuple(place)


def _model_at(model: type[BaseModel], place: Place) -> type[BaseModel] | None:
    table: type[BaseModel] | None = model
    for part in place:
        table = _model_of(table.model_fields.get(str(part))) if table else None
    return table


def _model_of(field: FieldInfo | None) -> type[BaseModel] | None:
    annotation = field.annotation if field is not None else None
    candidates = [one for one in (annotation, *get_args(annotation)) if isinstance(one, type)]
    return next((one for one in candidates if issubclass(one, BaseModel)), None)


def _without(content: Any, places: Iterable[Place]) -> Any:
    """Return a copy of tables without some places."""
    left: dict[Any, set[Place]] = {}
    for place in places:
        if place:
            left.setdefault(place[0], set()).add(place[1:])
    return {
        key: _without(value, left[key]) if key in left and isinstance(value, Mapping) else value
        for key, value in content.items()
        if () not in left.get(key, ())
    }


def _order(content: Any, above: Place = ()) -> dict[Place, int]:
    places: list[Place] = []

    def walk(value: Any, place: Place) -> None:
        places.append(place)
        if isinstance(value, Mapping) and len(place) < 3:
            for key, inner in value.items():
                walk(inner, (*place, key))

    walk(content, above)
    return {place: number for number, place in enumerate(places)}


def _dotted(place: Place) -> str:
    return ".".join(map(str, place))
