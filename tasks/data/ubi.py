"""Read queries and events in the User Behavior Insights (UBI) schema: newline-delimited JSON, bulk format or plain.

Schema: https://o19s.github.io/ubi (versions 1.0 to 1.3). Three file names are read, in any combination:
`ubi_queries.ndjson`, `ubi_events.ndjson`, and `ubi_queries_events.ndjson` with both kinds in one file. In bulk format
each document follows a line such as {"index": {...}}; those lines are passed over. What is read of a document:

| here | in an event |
|---|---|
| time | `timestamp`: ISO 8601 (UTC unless it says otherwise) or milliseconds since 1970 |
| client | `client_id` |
| session | `session_id`, or that of `event_attributes`, or the `query_id` |
| query | `user_query`, or that of the query document with the same `query_id` |
| product | `event_attributes.object.object_id` |
| action | `action_name`, see :data:`ACTION_NAMES` |
| locale | `locale` of `event_attributes` or of the query's `query_attributes`; else the one whose catalogue has it |
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from esci_tournament.registry.errors import DataError
from esci_tournament.tasks.data.layout import UBI_FILES

ACTION_NAMES = {
    "impression": "impression",
    "click": "click",
    "item_click": "click",
    "add_to_cart": "add",
    "purchase": "purchase",
}
_BULK = frozenset({"index", "create"})
_TEXT = ("client_id", "session_id", "query", "locale", "product_id", "action")
_BATCH = 65_536
_MILLISECOND = 1000


@dataclass(frozen=True)
class UbiEvents:
    """The events of one file, in its order.

    Attributes:
        file: Name of the file.
        columns: Those of `behaviour_events.parquet`, large_string and timestamp[us] (n,), "" where an event says
            nothing; an action that is not one of ours stays as it is spelt.
        lines: int64 (n,), number of each event's line, from 1.
    """

    file: str
    columns: dict[str, pa.Array]
    lines: np.ndarray


def read_ubi(folder: Path) -> list[UbiEvents]:
    """Read every UBI file of a folder.

    Args:
        folder: The folder; files that are not there are passed over.

    Returns:
        The events of each file that has any, queries joined to them by `query_id` across files.

    Raises:
        DataError: If a line is no JSON object, is neither query nor event, or has no readable timestamp, or a value
            cannot be stored.
    """
    queries: dict[str, tuple[str, str]] = {}
    found = []
    for name in UBI_FILES:
        if (folder / name).is_file():
            found.append(_read_file(folder / name, queries))
    # A query document may stand behind its events, and in another file.
    return [_complete(name, batches, lines, queries) for name, batches, lines in found if lines]


def _read_file(path: Path, queries: dict[str, tuple[str, str]]) -> tuple[str, dict[str, list[pa.Array]], list[int]]:
    names = ("timestamp", *_TEXT, "query_id")
    rows: dict[str, list[Any]] = {name: [] for name in names}
    batches: dict[str, list[pa.Array]] = {name: [] for name in names}
    lines: list[int] = []

    def flush() -> None:
        for name in names:
            kind = pa.int64() if name == "timestamp" else pa.large_string()
            try:
                batches[name].append(pa.array(rows[name], kind))
            except (pa.ArrowException, OverflowError, UnicodeError) as error:
                block = [f"somewhere in lines {lines[-len(rows[name])]} to {lines[-1]}"]
                raise DataError(f"a value cannot be kept ({error})", file=path, column=name, rows=block) from error
            rows[name].clear()

    for number, document in _documents(path):
        if "action_name" in document:
            event = _event(document, path, number)
            for name in names:
                rows[name].append(event[name])
            lines.append(number)
            if len(rows["timestamp"]) == _BATCH:
                flush()
        elif "query_id" in document and "user_query" in document:
            attributes = _object(document.get("query_attributes"))
            queries[_word(document["query_id"])] = (_word(document["user_query"]), _word(attributes.get("locale")))
        else:
            advice = "a query has query_id and user_query, an event has action_name"
            raise _broken(path, number, f"neither a query nor an event ({', '.join(sorted(document)[:5])})", advice)
    flush()
    return path.name, batches, lines


def _documents(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number of the line, from 1, and the document; blank lines and those of the bulk format are passed."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    document = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise _broken(path, number, f"no JSON ({error})") from error
                if not isinstance(document, dict):
                    raise _broken(path, number, f"no JSON object but {type(document).__name__}")
                if len(document) != 1 or not _BULK.issuperset(document):
                    yield number, document
    except OSError as error:
        raise DataError(f"the file cannot be read ({error.strerror or error})", file=path) from error


def _event(document: dict[str, Any], path: Path, number: int) -> dict[str, Any]:
    attributes = _object(document.get("event_attributes"))
    query_id = _word(document.get("query_id"))
    action = _word(document["action_name"])
    return {
        "timestamp": _microseconds(document.get("timestamp"), path, number),
        "client_id": _word(document.get("client_id")),
        "session_id": _word(document.get("session_id")) or _word(attributes.get("session_id")) or query_id,
        "query": _word(document.get("user_query")),
        "locale": _word(attributes.get("locale")),
        "product_id": _word(_object(attributes.get("object")).get("object_id")),
        "action": ACTION_NAMES.get(action, action),
        "query_id": query_id,
    }


def _complete(
    file: str, batches: dict[str, list[pa.Array]], lines: list[int], queries: dict[str, tuple[str, str]]
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
    return UbiEvents(file, columns, np.asarray(lines, dtype=np.int64))


def _microseconds(value: Any, path: Path, number: int) -> int:
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return round(value * _MILLISECOND)
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError, OverflowError) as error:
        advice = "it must be ISO 8601 or milliseconds since 1970"
        raise _broken(path, number, f"the timestamp {value!r} cannot be read", advice) from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    elapsed = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (elapsed.days * 86_400 + elapsed.seconds) * 1_000_000 + elapsed.microseconds


def _word(value: Any) -> str:
    return "" if value is None else str(value)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _broken(path: Path, number: int, problem: str, advice: str = "correct or remove it") -> DataError:
    return DataError(
        f"a line is {problem}" if not problem.startswith("the ") else problem,
        file=path,
        rows=[f"line {number}"],
        advice=advice,
    )
