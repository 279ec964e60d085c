"""UBI logs: which fields are read, how variants of the format are handled, and what is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esci_tournament.registry.errors import DataError
from esci_tournament.tasks.data.ubi import _microseconds, read_ubi

QUERY = {"query_id": "q1", "user_query": "red lamp", "client_id": "c", "timestamp": "2026-01-01T00:00:00Z"}


def event(action: str = "click", product: str = "P1", **changes: object) -> dict:
    attributes = {"object": {"object_id": product, "object_id_field": "asin"}, "position": {"ordinal": 1}}
    plain = {
        "action_name": action,
        "query_id": "q1",
        "client_id": "c",
        "session_id": "s",
        "event_attributes": attributes,
    }
    return {**plain, "timestamp": "2026-01-01T00:00:05.250Z", **changes}


def write(folder: Path, *documents: dict, name: str = "ubi_queries_events.ndjson", bulk: bool = False) -> Path:
    lines = [json.dumps(one) for one in documents]
    if bulk:
        lines = [line for one in lines for line in ('{"index": {"_index": "ubi"}}', one)]
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def rows(folder: Path) -> list[dict]:
    (found,) = read_ubi(folder)
    columns = {name: array.to_pylist() for name, array in found.columns.items()}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


@pytest.mark.parametrize("bulk", [True, False])
def test_bulk_and_plain_lines_say_the_same(tmp_path: Path, bulk: bool) -> None:
    (one,) = rows(write(tmp_path, QUERY, event(), bulk=bulk))
    expected = {"client_id": "c", "session_id": "s", "query": "red lamp", "product_id": "P1", "action": "click"}
    assert {name: one[name] for name in expected} == expected
    assert one["timestamp"].isoformat() == "2026-01-01T00:00:05.250000"


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    (found,) = read_ubi(write(tmp_path, QUERY, event(), event(), bulk=True))
    assert (found.unit, found.numbers.tolist()) == ("line", [4, 6])


@pytest.mark.parametrize(
    "when",
    [
        *(1767225605250, "1767225605250", 1767225605250000, 1767225605250000000, 1767225605.25, "1767225605.250"),
        *("2026-01-01T00:00:05.250Z", "2026-01-01T01:00:05.250+01:00", "2026-01-01 00:00:05.250"),
    ],
)
def test_every_way_to_write_a_time_is_the_same_moment(tmp_path: Path, when: object) -> None:
    (one,) = rows(write(tmp_path, QUERY, event(timestamp=when)))
    assert one["timestamp"].isoformat() == "2026-01-01T00:00:05.250000"


@pytest.mark.parametrize("when", [0, -1, 5, "12", 946_684_799, 4_102_444_800, 10**30, -1767225605, 20260101])
def test_a_number_that_is_a_time_in_no_unit_is_no_plausible_time(tmp_path: Path, when: object) -> None:
    (one,) = rows(write(tmp_path, QUERY, event(timestamp=when)))
    assert one["timestamp"].year == 1970


@given(when=st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31)), unit=st.sampled_from([1, 10**3, 10**6, 10**9]))
def test_a_time_is_the_same_moment_in_every_unit(when: datetime, unit: int) -> None:
    seconds = int(when.replace(tzinfo=UTC).timestamp())
    assert _microseconds(seconds * unit, Path("x"), "line 1") == seconds * 10**6


def test_a_query_may_stand_in_another_file_and_behind_its_events(tmp_path: Path) -> None:
    write(tmp_path, event(query_id="later"), name="ubi_events.ndjson")
    write(tmp_path, {**QUERY, "query_id": "later"}, name="ubi_queries_events.ndjson")
    assert [one["query"] for one in rows(tmp_path)] == ["red lamp"]


def test_the_events_own_query_comes_before_that_on_record(tmp_path: Path) -> None:
    (one,) = rows(write(tmp_path, QUERY, event(user_query="blue lamp")))
    assert one["query"] == "blue lamp"


def test_actions_are_named_as_ours_and_others_stay(tmp_path: Path) -> None:
    names = ["impression", "CLICK", "addToCart", "purchase", "brand_filter", "view"]
    folder = write(tmp_path, QUERY, *(event(name) for name in names))
    assert [one["action"] for one in rows(folder)] == ["impression", "click", "add", "purchase", "ignore", "view"]
    (mapped,) = read_ubi(folder, {"view": "impression"})
    assert mapped.columns["action"].to_pylist()[-1] == "impression"


def test_a_session_is_that_of_the_attributes_or_the_query(tmp_path: Path) -> None:
    inner = event(session_id=None, event_attributes={"session_id": "inner", "object": {"object_id": "P1"}})
    found = rows(write(tmp_path, QUERY, inner, event(session_id=None)))
    assert [one["session_id"] for one in found] == ["inner", "q1"]


def test_a_locale_is_the_events_or_its_querys(tmp_path: Path) -> None:
    spanish = {**QUERY, "query_id": "es", "query_attributes": {"locale": "es"}}
    own = event(event_attributes={"locale": "jp", "object": {"object_id": "P1"}})
    found = rows(write(tmp_path, QUERY, spanish, event(), event(query_id="es"), own))
    assert [one["locale"] for one in found] == ["", "es", "jp"]


@pytest.mark.parametrize("empty", [None, {}, {"object": None}, {"object": {"object_id": None}}, "nothing"])
def test_an_event_of_no_product_is_read_as_such(tmp_path: Path, empty: object) -> None:
    (one,) = rows(write(tmp_path, QUERY, event("search", event_attributes=empty)))
    assert one["product_id"] == ""


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"action_name": "click"', "no JSON.*line 2"),
        ('["click"]', "no JSON object but list.*line 2"),
        ('{"delete": {"_id": 1}}', r"neither a query nor an event \(delete\).*line 2"),
        (json.dumps(event(timestamp="yesterday")), "timestamp 'yesterday'.*line 2.*ISO 8601"),
        (json.dumps(event(timestamp=None)), "timestamp None"),
        (json.dumps(event(timestamp=True)), "timestamp True"),
        (json.dumps(event(client_id="\ud800")), "cannot be kept.*client_id"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    (tmp_path / "ubi_events.ndjson").write_text(json.dumps(QUERY) + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=complaint) as caught:
        read_ubi(tmp_path)
    assert "ubi_events.ndjson" in str(caught.value)


def test_a_folder_without_logs_has_no_events(tmp_path: Path) -> None:
    assert read_ubi(tmp_path) == []
    assert read_ubi(write(tmp_path, QUERY)) == []


@pytest.mark.shared
def test_a_real_file_is_read(tmp_path: Path) -> None:
    """The format only: these events were made from judgements and must never be learnt from."""
    sample = Path(__file__).resolve().parents[4] / "shared" / "ubi_sample" / "ubi_queries_events.ndjson"
    if not sample.is_file():
        pytest.skip(f"the UBI sample is not there: {sample}")
    (tmp_path / sample.name).symlink_to(sample)
    (found,) = read_ubi(tmp_path)
    actions = dict(zip(*np.unique(found.columns["action"].to_pylist(), return_counts=True), strict=True))
    assert len(found.numbers) == 3448
    assert (actions["impression"], actions["click"], actions["add"], actions["purchase"]) == (1999, 298, 234, 6)
    assert all(found.columns["session_id"].to_pylist())
