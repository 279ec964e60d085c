"""Behaviour logs: which rows count, which are excluded and reported, and their effect on the data version."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from esci_tournament.registry.errors import CandidateError, DataError
from esci_tournament.tasks.data.behaviour import edges, edges_of_several
from esci_tournament.tasks.data.bounds import Bounds
from esci_tournament.tasks.data.dataset import EDGE_COLUMNS, EVENT_COLUMNS, Dataset, query_key
from esci_tournament.tasks.data.layout import EDGES_FILE, EVENTS_FILE
from esci_tournament.tasks.data.load import load_esci
from esci_tournament.tasks.data.logs import LogLimits
from esci_tournament.tasks.data.store import open_dataset, save_dataset
from esci_tournament.tasks.data.validate import check_folder, raise_if_critical, validate

NOBODY = np.zeros(0, dtype=np.uint64)


@pytest.fixture
def quiet(tiny_world: Path, tmp_path: Path) -> Path:
    """The tiny world without its events."""
    folder = shutil.copytree(tiny_world, tmp_path / "quiet")
    (folder / EVENTS_FILE).unlink()
    return folder


@pytest.fixture
def loud(tiny_world: Path, tmp_path: Path) -> Path:
    """The tiny world with its events."""
    return shutil.copytree(tiny_world, tmp_path / "loud")


def product_of(dataset: Dataset, locale: str, number: int = 0) -> str:
    return str(dataset.products.loc[dataset.products["locale"] == locale, "product_id"].iloc[number])


def write_table(folder: Path, *rows: tuple) -> Path:
    """Write an edge table of (query, source, locale, product, relation, weight)."""
    names = ["query", "source_product_id", "locale", "product_id", "relation", "weight"]
    frame = pd.DataFrame(rows, columns=names)
    frame["timestamp"] = pd.Timestamp("2026-02-01") + pd.to_timedelta(np.arange(len(frame)), unit="D")
    for name in ("query", "source_product_id"):
        frame[name] = frame[name].astype("string")
    frame.to_parquet(folder / EDGES_FILE, index=False)
    return folder


def write_ubi(folder: Path, *events: tuple) -> Path:
    """Write UBI events of (query, product, action, client)."""
    documents = [
        {
            "action_name": action,
            "user_query": query,
            "query_id": f"q-{query}",
            "client_id": client,
            "session_id": f"s-{client}",
            "timestamp": 1_767_225_600_000 + number,
            "event_attributes": {"object": {"object_id": product}},
        }
        for number, (query, product, action, client) in enumerate(events)
    ]
    (folder / "ubi_events.ndjson").write_text("".join(json.dumps(one) + "\n" for one in documents), encoding="utf-8")
    return folder


def left_out(dataset: Dataset) -> dict[str, int]:
    return {one.reason: one.count for one in dataset.left_out}


def test_ubi_events_become_events_in_the_locale_of_their_product(quiet: Path, tiny_dataset: Dataset) -> None:
    product = product_of(tiny_dataset, "es")
    dataset = load_esci(write_ubi(quiet, ("lámpara", product, "click", "c"), ("lámpara", product, "purchase", "c")))
    assert tuple(dataset.events.columns) == EVENT_COLUMNS
    assert dataset.events["locale"].astype(str).tolist() == ["es", "es"]
    assert dataset.events["query_key"].tolist() == [query_key("lámpara", "es")] * 2
    found = edges(dataset, "clicks", NOBODY)
    assert dataset.products["product_id"].iloc[found["product"]].tolist() == [product]


def test_ubi_events_stand_behind_those_of_the_table(loud: Path, tiny_dataset: Dataset) -> None:
    dataset = load_esci(write_ubi(loud, ("lamp", product_of(tiny_dataset, "us"), "click", "c")))
    assert len(dataset.events) == len(tiny_dataset.events) + 1
    pd.testing.assert_frame_equal(dataset.events.iloc[:-1], tiny_dataset.events)


def test_each_reason_to_leave_an_event_out_is_counted(quiet: Path, tiny_dataset: Dataset) -> None:
    product = product_of(tiny_dataset, "us")
    events = [
        ("lamp", product, "click", "c"),
        ("lamp", "NOWHERE", "click", "c"),
        ("lamp", product, "brand_filter", "c"),
        ("lamp", product, "view", "c"),
        ("lamp", product, "wishlist", "c"),
        ("lamp", product, "view", "c"),
    ]
    events += [(" ", product, "click", "c")] + [("lamp", product, "impression", "robot")] * 9
    dataset = load_esci(write_ubi(quiet, *events), limits=LogLimits(bot_events=8))
    assert left_out(dataset) == {
        **{"ignored_action": 1, "other_action": 3, "query_unknown": 1, "bot": 9, "product_unknown": 1}
    }
    assert len(dataset.events) == 1
    shown = {one.reason: one.first_rows for one in dataset.left_out}
    assert shown["query_unknown"] == (f"line 7 ( ): {product!r}",)
    assert shown["other_action"] == ("'view': 2 events", "'wishlist': 1 event")
    mapped = LogLimits(bot_events=8, actions={"view": "impression", "wishlist": "ignore"})
    again = load_esci(quiet, limits=mapped)
    assert left_out(again) == {"ignored_action": 2, "query_unknown": 1, "bot": 9, "product_unknown": 1}
    assert len(again.events) == 3
    assert again.version != dataset.version


def test_a_time_in_a_wrong_unit_never_comes_in_before_the_cutoff(loud: Path, tiny_dataset: Dataset) -> None:
    """Milliseconds that were written as microseconds are of 1970, before every cut-off."""
    events = pd.read_parquet(loud / EVENTS_FILE)
    events["timestamp"] = pd.to_datetime(events["timestamp"].astype("int64") // 10**6, unit="us")
    events.to_parquet(loud / EVENTS_FILE, index=False)
    dataset = load_esci(loud, limits=LogLimits(cutoff=datetime(2000, 1, 2)))
    assert left_out(dataset) == {"implausible_time": len(events)}
    result = check_folder(loud)
    assert {"behaviour_mostly_kept"} == {check.name for check in result.failures}
    assert "behaviour_time_plausible" in {check.name for check in result.warnings}


def test_a_log_of_which_most_is_left_out_is_refused_unless_a_setting_allows_it(
    quiet: Path, tiny_dataset: Dataset
) -> None:
    product = product_of(tiny_dataset, "us")
    write_ubi(quiet, *[("lamp", product, "view", "c")] * 3, *[("lamp", product, "click", "c")] * 2)
    with pytest.raises(DataError, match=r"most rows of a log are left out.*ubi_events.ndjson: 40.0%.*behaviour_kept"):
        raise_if_critical(check_folder(quiet))
    allowed = check_folder(quiet, bounds=Bounds(behaviour_kept=0.4))
    assert allowed.passed
    assert [check.name for check in allowed.warnings] == ["event_action_clear"]
    assert "'view': 3 events" in allowed.warnings[0].first_rows


def test_what_is_left_out_on_purpose_does_not_count_against_a_log(quiet: Path, tiny_dataset: Dataset) -> None:
    product = product_of(tiny_dataset, "us")
    write_ubi(quiet, *[("lamp", product, "on_search", "c")] * 30, ("lamp", product, "click", "c"))
    assert not check_folder(quiet).failures
    assert not check_folder(quiet).warnings


def test_a_file_that_nobody_reads_is_told(quiet: Path) -> None:
    for name in (
        "ubi_events.parquet",
        "clicks.csv",
        "notes.txt",
        ".hidden.csv",
        "shopping_queries_dataset_sources.csv",
    ):
        (quiet / name).write_text("")
    (warning,) = check_folder(quiet).warnings
    assert (warning.name, warning.first_rows) == ("files_known", ("clicks.csv", "ubi_events.parquet"))


def test_a_client_without_a_name_is_no_bot(quiet: Path, tiny_dataset: Dataset) -> None:
    events = [("lamp", product_of(tiny_dataset, "us"), "click", None)] * 9
    assert left_out(load_esci(write_ubi(quiet, *events), limits=LogLimits(bot_events=8))) == {}


def test_a_product_of_several_locales_needs_a_locale(quiet: Path, tiny_dataset: Dataset) -> None:
    products = pd.read_parquet(next(quiet.glob("*products.parquet")))
    twin = products[products["product_locale"] == "us"].iloc[[0]].assign(product_locale="jp")
    pd.concat([products, twin]).to_parquet(next(quiet.glob("*products.parquet")), index=False)
    dataset = load_esci(write_ubi(quiet, ("lamp", twin["product_id"].iloc[0], "click", "c")))
    assert left_out(dataset) == {"locale_unknown": 1}


@pytest.mark.parametrize("zone", [None, UTC])
def test_what_is_after_the_cutoff_is_left_out(loud: Path, tiny_dataset: Dataset, zone: object) -> None:
    times = np.sort(tiny_dataset.events["time"].to_numpy())
    cutoff = pd.Timestamp(times[len(times) // 2]).to_pydatetime().replace(tzinfo=zone)
    dataset = load_esci(loud, limits=LogLimits(cutoff=cutoff))
    late = int((times > times[len(times) // 2]).sum())
    assert left_out(dataset) == {"after_cutoff": late}
    assert dataset.events["time"].max() == times[len(times) // 2]


def test_bots_are_counted_up_to_the_cutoff_alone(quiet: Path, tiny_dataset: Dataset) -> None:
    """What a client does later says nothing at the cut-off."""
    events = [("lamp", product_of(tiny_dataset, "us"), "click", "c")] * 9
    dataset = load_esci(write_ubi(quiet, *events), limits=LogLimits(datetime(2026, 1, 1, 0, 0, 0, 3000), bot_events=8))
    assert left_out(dataset) == {"after_cutoff": 5}


def test_the_version_follows_what_the_limits_keep(loud: Path, tiny_dataset: Dataset) -> None:
    times = np.sort(tiny_dataset.events["time"].to_numpy())
    last, middle = (pd.Timestamp(times[row]).to_pydatetime() for row in (-1, len(times) // 2))
    versions = [load_esci(loud, limits=LogLimits(cutoff=one)).version for one in (last, middle)]
    assert versions[0] == tiny_dataset.version  # nothing is left out
    assert versions[1] != tiny_dataset.version


def test_the_version_covers_every_log(quiet: Path, tiny_dataset: Dataset) -> None:
    product = product_of(tiny_dataset, "us")
    versions = [load_esci(quiet).version]
    for query in ("lamp", "lamps"):
        versions.append(load_esci(write_ubi(quiet, (query, product, "click", "c"))).version)
    for weight in (1.0, 2.0):
        table = write_table(quiet, ("lamp", None, "us", product, "clicks", weight))
        versions.append(load_esci(table).version)
    assert len(set(versions)) == 5


def test_what_is_left_out_is_a_warning_that_names_the_rows(quiet: Path, tiny_dataset: Dataset) -> None:
    write_ubi(quiet, ("lamp", "NOWHERE", "click", "c"), ("lamp", product_of(tiny_dataset, "us"), "click", "c"))
    known = product_of(tiny_dataset, "us")
    write_table(quiet, ("lamp", None, "us", "GONE", "clicks", 1.0), ("lamp", None, "us", known, "clicks", 1.0))
    result = check_folder(quiet)
    assert result.passed
    (warning,) = result.warnings
    assert (warning.name, warning.count) == ("event_product_exists", 2)
    assert "behaviour_edges.parquet, row 0 (clicks): 'GONE'" in warning.first_rows
    assert "ubi_events.ndjson, line 1 (lamp): 'NOWHERE'" in warning.first_rows


def test_a_stored_data_set_keeps_its_edge_table_and_what_was_left_out(quiet: Path, tmp_path: Path) -> None:
    product = product_of(load_esci(quiet), "us")
    dataset = load_esci(
        write_table(quiet, ("lamp", None, "us", product, "clicks", 1), ("a", None, "us", "GONE", "adds", 1))
    )
    (tmp_path / "stored").mkdir()
    save_dataset(dataset, tmp_path / "stored")
    again = open_dataset(tmp_path / "stored")
    pd.testing.assert_frame_equal(again.edges, dataset.edges)
    assert again.left_out == dataset.left_out != ()


def test_a_table_counts_as_often_as_its_weight_says(quiet: Path, tiny_dataset: Dataset) -> None:
    one, other = (product_of(tiny_dataset, "us", number) for number in (0, 1))
    rows = [
        ("lamp", None, "us", one, "clicks", 2.5),
        (" LAMP", None, "us", one, "clicks", 1),
        ("lamp", None, "us", one, "adds", 4),
    ]
    dataset = load_esci(write_table(quiet, *rows, (None, one, "us", other, "bought_together", 3)))
    assert tuple(dataset.edges.columns) == EDGE_COLUMNS
    assert edges(dataset, "clicks", NOBODY)["weight"].tolist() == pytest.approx([np.log1p(3.5)])
    together = edges(dataset, "bought_together", NOBODY)
    assert together["weight"].tolist() == pytest.approx([np.log1p(3)] * 2)
    assert together["source"].tolist() == together["product"].tolist()[::-1]
    every = edges(dataset, "all", NOBODY)
    assert every.loc[every["query_key"] == query_key("lamp", "us"), "weight"].tolist() == pytest.approx([np.log1p(7.5)])


def test_events_and_the_table_add_up(loud: Path, tiny_dataset: Dataset) -> None:
    click = tiny_dataset.events[tiny_dataset.events["action"] == "click"].iloc[0]
    product = tiny_dataset.products["product_id"].iloc[click["product"]]
    dataset = load_esci(write_table(loud, (click["query"], None, click["locale"], product, "clicks", 10)))
    test = tiny_dataset.pairs.loc[tiny_dataset.pairs["split"] == "test", "query_key"]
    assert click["query_key"] not in set(test)
    before, after = (edges(one, "clicks", NOBODY) for one in (tiny_dataset, dataset))
    changed = np.flatnonzero(before["weight"] != after["weight"])
    assert len(changed) == 1
    assert np.expm1(after["weight"].iloc[changed[0]]) == pytest.approx(
        np.expm1(before["weight"].iloc[changed[0]]) + 10, rel=1e-4
    )


def test_a_held_out_query_of_the_table_never_comes_out(quiet: Path, tiny_dataset: Dataset) -> None:
    pairs = tiny_dataset.pairs
    query = pairs.loc[(pairs["split"] == "test") & (pairs["locale"] == "us"), "query"].iloc[0]
    product = product_of(tiny_dataset, "us")
    rows = [(query, None, "us", product, "clicks", 1), (f" {query.upper()}", None, "us", product, "clicks", 1)]
    dataset = load_esci(write_table(quiet, *rows, ("nobody asked", None, "us", product, "clicks", 1)))
    assert edges(dataset, "clicks", NOBODY)["query"].tolist() == ["nobody asked"]
    held = np.array([query_key("nobody asked", "us")], dtype=np.uint64)
    assert len(edges(dataset, "clicks", held)) == 0


def test_a_relation_that_the_table_lacks_says_so(quiet: Path, tiny_dataset: Dataset) -> None:
    dataset = load_esci(write_table(quiet, ("lamp", None, "us", product_of(tiny_dataset, "us"), "clicks", 1)))
    with pytest.raises(CandidateError, match=r"no event purchase and no edge of it.*clicks"):
        edges(dataset, "purchases", NOBODY)


@pytest.mark.parametrize(
    ("row", "check"),
    [
        (("lamp", None, "us", "P", "kisses", 1.0), "edge_relation_known"),
        (("lamp", None, "fr", "P", "clicks", 1.0), "edge_locale_known"),
        (("lamp", None, "us", "P", "clicks", 0.0), "edge_weight_positive"),
        (("lamp", None, "us", "P", "clicks", float("inf")), "edge_weight_positive"),
        (("lamp", "P", "us", "P", "clicks", 1.0), "edge_origin"),
        ((None, None, "us", "P", "clicks", 1.0), "edge_origin"),
        (("lamp", None, "us", "P", "same_session", 1.0), "edge_origin"),
        ((None, "P", "us", "P", "clicks", 1.0), "edge_origin"),
    ],
)
def test_a_wrong_edge_is_critical(quiet: Path, tiny_dataset: Dataset, row: tuple, check: str) -> None:
    product = product_of(tiny_dataset, "us")
    wrong = tuple(product if value == "P" else value for value in row)
    result = check_folder(write_table(quiet, ("lamp", None, "us", product, "clicks", 1.0), wrong))
    assert check in {one.name for one in result.failures}
    assert next(one for one in result.failures if one.name == check).first_rows[0].startswith("row 1 ")


def test_several_relations_stand_one_after_the_other(tiny_dataset: Dataset) -> None:
    found = edges_of_several(tiny_dataset, ("clicks", "same_brand"), NOBODY)
    clicks, brand = (edges(tiny_dataset, one, NOBODY) for one in ("clicks", "same_brand"))
    assert found["relation"].value_counts().to_dict() == {"clicks": len(clicks), "same_brand": len(brand)}
    assert str(found["query_key"].dtype) == "uint64"
    assert found["source"].to_numpy()[-len(brand) :].tolist() == brand["source"].tolist()
    assert (found["source"].to_numpy()[: len(clicks)] == -1).all()
    assert (found["query_key"].to_numpy()[-len(brand) :] == 0).all()


def test_a_data_set_without_logs_has_no_rule_about_them(tiny_dataset: Dataset) -> None:
    names = {check.name for check in validate(replace(tiny_dataset, events=None)).checks}
    assert not names & {"event_product_exists", "behaviour_of_customers", "action_known", "edge_origin"}
