"""Read queries and events in the User Behavior Insights (UBI) schema.

Schema: https://o19s.github.io/ubi (versions 1.0 to 1.3). Three files are read, in any combination: `ubi_queries`,
`ubi_events`, and `ubi_queries_events` with both kinds in one file, each in any shape of
`esci_tournament.tasks.data.ubi_files`. What is read of a document:

| here | in an event |
|---|---|
| time | `timestamp`: ISO 8601 (UTC unless it says otherwise), or a number since 1970 |
| client | `client_id` |
| session | `session_id`, or that of `event_attributes`, or the `query_id` |
| query | `user_query`, or that of the query document with the same `query_id` |
| product | `event_attributes.object.object_id` |
| action | `action_name`, see `esci_tournament.tasks.data.ubi_actions` |
| locale | `locale` of `event_attributes` or of the query's `query_attributes`; else the one whose catalogue has it |
A number is seconds, milliseconds, microseconds or nanoseconds, whichever makes it a time from 2000 to 2099.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from esci_tournament.registry.errors import DataError
from esci_tournament.tasks.data.layout import YEARS
from esci_tournament.tasks.data.ubi_actions import action_of
from esci_tournament.tasks.data.ubi_files import broken, documents, ubi_files, unit_of

_TEXT = ("client_id", "session_id", "query", "locale", "product_id", "action")
_BATCH = 65_536
# Seconds since 1970 at both ends of the years that count; the same times in other units lie far from each other
_SECONDS = tuple(int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in YEARS)
_POWERS = {0: 6, 3: 3, 6: 0, 9: -3}  # digits more than seconds have -> power of ten to microseconds
_NO_TIME = 0  # 1970: it is left out as implausible


@dataclass(frozen=True)
class UbiEvents:
    """The events of one file, in its order.

    Attributes:
        file: Name of the file.
        columns: Those of `behaviour_events.parquet`, large_string and timestamp[us] (n,), "" where an event says
            nothing; an action that is not one of ours stays as it is spelt.
        numbers: int64 (n,), where each event stands, from 1.
        unit: What the numbers count: "line" or "document".
    """

    file: str
    columns: dict[str, pa.Array]
    numbers: np.ndarray
    unit: str


def read_ubi(folder: Path, actions: Mapping[str, str] | None = None) -> list[UbiEvents]:
    """Read every UBI file of a folder.

    Args:
        folder: The folder; files that are not there are passed over.
        actions: What names of actions mean, beside those that are known; see
            :func:`esci_tournament.tasks.data.ubi_actions.action_of`.

    Returns:
        The events of each file that has any, queries joined to them by `query_id` across files.

    Raises:
        DataError: If a document is no JSON object, is neither query nor event, or has no readable timestamp, or a value
            cannot be stored, or a log is there twice.
    """
    queries: dict[str, tuple[str, str]] = {}
    paths = ubi_files(folder)
    found = [_read_file(path, queries, actions or {}) for path in paths]
    # A query document may stand behind its events, and in another file.
    return [_complete(path.name, *part, queries) for path, part in zip(paths, found, strict=True) if len(part[1])]


def _read_file(
    path: Path, queries: dict[str, tuple[str, str]], actions: Mapping[str, str]
) -> tuple[dict[str, list[pa.Array]], array[int], str]:
    names = ("timestamp", *_TEXT, "query_id")
    rows: dict[str, list[Any]] = {name: [] for name in names}
    batches: dict[str, list[pa.Array]] = {name: [] for name in names}
    numbers, unit = array("q"), unit_of(path)
    known: dict[str, str] = {}  # the few names of actions that a log has

    def flush() -> None:
        for name in names:
            kind = pa.int64() if name == "timestamp" else pa.large_string()
            try:
                batches[name].append(pa.array(rows[name], kind))
            except (pa.ArrowException, OverflowError, UnicodeError) as error:
                block = [f"somewhere from {unit} {numbers[-len(rows[name])]} to {numbers[-1]}"]
                raise DataError(f"a value cannot be kept ({error})", file=path, column=name, rows=block) from error
            rows[name].clear()

    for number, document in documents(path):
        place = f"{unit} {number}"
        if "action_name" in document:
            event = _event(document, path, place)
            said = event["action"]
            if said not in known:
                known[said] = action_of(said, actions)
            event["action"] = known[said]
            for name in names:
                rows[name].append(event[name])
            numbers.append(number)
            if len(rows["timestamp"]) == _BATCH:
                flush()
        elif "query_id" in document and "user_query" in document:
            attributes = _object(document.get("query_attributes"))
            queries[_word(document["query_id"])] = (_word(document["user_query"]), _word(attributes.get("locale")))
        else:
            advice = "a query has query_id and user_query, an event has action_name"
            raise broken(path, place, f"neither a query nor an event ({', '.join(sorted(document)[:5])})", advice)
    flush()
    return batches, numbers, unit


def _event(document: dict[str, Any], path: Path, place: str) -> dict[str, Any]:
    attributes = _object(document.get("event_attributes"))
    query_id = _word(document.get("query_id"))
    return {
        "timestamp": _microseconds(document.get("timestamp"), path, place),
        "client_id": _word(document.get("client_id")),
        "session_id": _word(document.get("session_id")) or _word(attributes.get("session_id")) or query_id,
        "query": _word(document.get("user_query")),
        "locale": _word(attributes.get("locale")),
        "product_id": _word(_object(attributes.get("object")).get("object_id")),
        "action": _word(document["action_name"]),
        "query_id": query_id,
    }


def _complete(
    file: str,
    batches: dict[str, list[pa.Array]],
    numbers: array[int],
    unit: str,
    queries: dict[str, tuple[str, str]],
) -> UbiEvents:
    joined = {name: pa.concat_arrays(batches.pop(name)) for name in list(batches)}
    columns = {name: joined[name] for name in _TEXT}
    ids = joined["query_id"].dictionary_encode()
    known = [queries.get(one, ("", "")) for one in ids.dictionary.to_pylist()]
    codes = ids.indices.to_numpy(zero_copy_only=False)
    for place, name in enumerate(("query", "locale")):
        on_record = pa.array([one[place] for one in known], pa.large_string()).take(pa.array(codes))
        said = pc.not_equal(columns[name], "")
        columns[name] = pc.if_else(said, columns[name], on_record)
    columns["timestamp"] = joined["timestamp"].cast(pa.timestamp("us"))
    return UbiEvents(file, columns, np.asarray(numbers, dtype=np.int64), unit)


def _microseconds(value: Any, path: Path, place: str) -> int:
    """Return a time in microseconds since 1970; that of a number that is a time in no unit is :data:`_NO_TIME`."""
    try:
        if isinstance(value, str) and value.strip().lstrip("-").replace(".", "", 1).isdecimal():
            value = float(value) if "." in value else int(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return _since_1970(value)
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError, OverflowError) as error:
        advice = "it must be ISO 8601, or seconds, milliseconds, microseconds or nanoseconds since 1970"
        raise broken(path, place, f"the timestamp {value!r} cannot be read", advice) from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    elapsed = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (elapsed.days * 86_400 + elapsed.seconds) * 1_000_000 + elapsed.microseconds


def _since_1970(value: float) -> int:
    if value != value:
        raise ValueError("no number")
    for digits, power in _POWERS.items():
        if _SECONDS[0] * 10**digits <= value < _SECONDS[1] * 10**digits:
            return round(value * 10**power) if power >= 0 else round(value / 10**-power)
    return _NO_TIME


def _word(value: Any) -> str:
    return "" if value is None else str(value)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
