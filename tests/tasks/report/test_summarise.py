"""The summary: every model once, with the results of its stages and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from esci_tournament.registry.labels import LABELS
from esci_tournament.registry.specs import parse_spec
from esci_tournament.tasks.data.dataset import Dataset
from esci_tournament.tasks.data.split import assign_roles
from esci_tournament.tasks.ensemble.judge import JudgeInput, JudgeSettings, judge
from esci_tournament.tasks.ensemble.trial import Trial
from esci_tournament.tasks.report.summarise import (
    describe_data,
    describe_spec,
    refused_models,
    sides,
    summarise_models,
    summarise_selection,
    worth_tables,
)
from esci_tournament.tasks.report.summary import Metrics

SPEC = parse_spec({"name": "x", "family": "graph_network", "architecture": "gatv2", "relation": "clicks"})
NUMBERS = {"accuracy": 0.6, "macro_f1": 0.5, "weighted_f1": 0.55}


def worth(member: str, utility: float) -> dict[str, Any]:
    return {
        "member": member, "utility": utility, "low": utility - 0.1, "high": utility + 0.1,
        "by_class": dict.fromkeys(LABELS, utility), "by_locale": {"us": utility},
    }  # fmt: skip


CHALLENGE: dict[str, Any] = {
    "worth": {"members": [worth("a/1", 0.7), worth("b-b/12", 0.3)]},
    "worth_all": {"members": [worth("a/1", 0.5), worth("c/1", 0.3), worth("b-b/12", 0.2)]},
    "drop_one": {"a/1": 0.04, "b-b/12": -0.01},
    "shapley": {"a/1": 0.4},
    "likeness": [
        {
            "first": "a",
            "second": "c",
            "correlation": 0.95,
            "agreement": 0.97,
            "near_copy": True,
            "sentence": "a and c are near copies",
        },
        {
            "first": "a",
            "second": "b",
            "correlation": 0.2,
            "agreement": 0.6,
            "near_copy": False,
            "sentence": "a and b differ",
        },
    ],
    "selection": {
        "rule": "shap",
        "evicted": [{"member": "c/1", "step": 1, "reason": "least utility a unit of budget"}],
        "used": {"memory_mib": 30.0, "milliseconds": 4.5},
        "path": [
            {"members": ["a/1", "b-b/12", "c/1"], "value": 0.5, "action": "start with everybody"},
            {"members": ["a/1", "b-b/12"], "value": 0.49, "action": "evict c/1"},
        ],
        "regret": 0.01,
        "refits": 5,
        "memory_curve": [{"limit": 10.0, "value": 0.4, "members": ["a/1"]}],
        "latency_curve": [{"limit": 2.0, "value": 0.3, "members": ["b-b/12"]}],
    },
}


def trial(champion: bool = True) -> Trial:
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 4, 400).astype(np.int8), np.repeat(np.arange(1, 51, dtype=np.uint64), 8)
    locales = np.where(groups % 2, "us", "jp")
    better, worse = (np.where(np.eye(4)[labels] > 0, share, (1 - share) / 3).astype(np.float32) for share in (0.7, 0.6))
    worse[::5] = worse[::5, ::-1]
    case = JudgeInput.from_probabilities(labels, groups, locales, better, worse if champion else None)
    verdict = judge(case, JudgeSettings(resamples=200))
    alone = {name: {"all": NUMBERS, "jp": NUMBERS} for name in ("a/1", "b-b/12", "c/1")}
    return Trial(verdict, np.diag([100, 100, 100, 100]).tolist(), alone)


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    entrants = [
        ("d/1", SPEC, "newcomer"),
        ("c/1", SPEC, "bench"),
        ("b-b/12", SPEC, "newcomer"),
        ("a/1", SPEC, "member"),
    ]
    rows = summarise_models(
        entrants, {"d/1": "the loss is nan"}, CHALLENGE, trial(), {"a/1": {"all": NUMBERS, "us": NUMBERS}},
        {"a/1": {"memory_mib": 20.0}}, {"a/1": 12.5},
    )  # fmt: skip
    return {row.name: row for row in rows}


def test_members_come_first_then_evicted_then_failed(models: dict[str, Any]) -> None:
    assert [(name, row.status) for name, row in models.items()] == [
        ("a", "member"),
        ("b-b", "member"),
        ("c", "evicted"),
        ("d", "failed"),
    ]


def test_a_member_has_its_worth_and_no_reason_to_be_absent(models: dict[str, Any]) -> None:
    row = models["a"]
    assert (row.utility, row.utility_low, row.utility_high) == (0.7, pytest.approx(0.6), pytest.approx(0.8))
    assert (row.utility_all, row.drop_one, row.fit_seconds, row.reason) == (0.5, 0.04, 12.5, "")
    assert row.test == row.blend == Metrics(**NUMBERS)
    assert (row.test_by_locale, row.blend_by_locale) == ({"jp": Metrics(**NUMBERS)}, {"us": Metrics(**NUMBERS)})
    assert row.cost == {"memory_mib": 20.0}


def test_a_name_with_hyphens_keeps_its_version(models: dict[str, Any]) -> None:
    assert (models["b-b"].name, models["b-b"].version) == ("b-b", "12")


def test_an_evicted_model_says_why_and_what_it_was_worth_among_all(models: dict[str, Any]) -> None:
    row = models["c"]
    assert row.reason == "least utility a unit of budget"
    assert (row.utility, row.drop_one, row.utility_all) == (None, None, 0.3)


def test_a_failed_model_says_why_and_has_no_numbers(models: dict[str, Any]) -> None:
    row = models["d"]
    assert row.reason == "the loss is nan"
    assert (row.test, row.test_by_locale, row.blend, row.cost, row.utility) == (None, {}, None, {}, None)


def test_where_a_model_comes_from_is_told_in_the_words_of_the_page(models: dict[str, Any]) -> None:
    assert {name: row.entry for name, row in models.items()} == {
        "a": "incumbent", "b-b": "candidate", "c": "bench", "d": "candidate",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"family": "graph_network", "architecture": "gatv2", "relation": "clicks"}, "gatv2 on clicks"),
        ({"family": "language_model", "architecture": "electra"}, "electra, from scratch, cross-encoder"),
        (
            {"family": "language_model", "checkpoint": "/models/e5-small", "recipe": {"style": "bi_encoder"}},
            "e5-small, fine-tuned, bi-encoder",
        ),
    ],
)
def test_a_model_is_described_in_a_few_words(content: dict[str, Any], words: str) -> None:
    assert describe_spec(parse_spec({"name": "x"} | content)) == words


def test_sides_keep_overall_and_locales_apart_from_classes() -> None:
    held = trial()
    found = sides(held)
    assert set(found["ensemble_by_locale"]) == {"us", "jp"}
    assert found["ensemble"].macro_f1 == held.verdict.metric("macro_f1").challenger
    assert found["champion"].macro_f1 == held.verdict.metric("macro_f1").champion < found["ensemble"].macro_f1
    assert found["ensemble_intervals"]["accuracy"] == [None, None]  # every answer is right: nothing says how surely
    row = held.verdict.metric("accuracy")
    assert row.difference_low < row.difference < row.difference_high


def test_without_a_champion_there_are_no_numbers_of_one() -> None:
    assert sides(trial(champion=False))["champion"] is None


def test_the_selection_is_told_in_the_units_of_the_budget() -> None:
    found = summarise_selection(CHALLENGE, {"budget_memory_mib": 32.0, "budget_latency_ms": None})
    assert found["budget"] == {"memory_mib": 32.0, "latency_ms": None}
    assert found["used"] == {"memory_mib": 30.0, "latency_ms": 4.5}
    assert [(step["step"], step["metric"]) for step in found["path"]] == [(0, 0.5), (1, 0.49)]
    assert (found["curve_memory"], found["curve_latency"]) == ([[10.0, 0.4]], [[2.0, 0.3]])


def test_only_near_copies_are_spoken_of() -> None:
    found = worth_tables(CHALLENGE)
    assert found["near_copies"] == ["a and c are near copies"]
    assert [(pair["first"], pair["second"], pair["correlation"]) for pair in found["likeness"]] == [
        ("a", "c", 0.95),
        ("a", "b", 0.2),
    ]
    assert found["shapley"] == {"a/1": 0.4}
    assert found["utility_by_locale"] == {"a/1": {"us": 0.7}, "b-b/12": {"us": 0.3}}


def test_the_data_is_counted_by_split_locale_class_and_role(tiny_dataset: Dataset) -> None:
    roles = assign_roles(tiny_dataset, "blend", 0.25, 0.1, 2)
    found = describe_data(tiny_dataset, roles)
    rows = found["by_split_locale"]
    assert {(row["split"], row["locale"]) for row in rows} == {
        (split, locale) for split in ("train", "test") for locale in ("us", "es", "jp")
    }
    assert sum(row["pairs"] for row in rows) == sum(found["roles"].values()) == found["pairs"] == len(roles)
    assert all(sum(row[label] for label in LABELS) == row["pairs"] for row in rows)
    assert sum(row["queries"] for row in rows) == found["queries"]
    assert found["roles"]["test"] == int((roles["role"] == "test").sum())
    assert describe_data(replace(tiny_dataset, events=None, source=Path("x")), roles)["events"] == 0


def test_who_was_turned_away_at_the_door_is_in_the_report_with_the_reason() -> None:
    [row] = refused_models({"sage/3": "no checkpoint"})
    assert (row.name, row.version, row.status, row.reason, row.test) == ("sage", "3", "failed", "no checkpoint", None)
