"""Validation: passes, warnings, tolerated errors, and the Data Docs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from esci_tournament.registry.errors import DataError
from esci_tournament.tasks.data.bounds import Bounds
from esci_tournament.tasks.data.dataset import Dataset
from esci_tournament.tasks.data.layout import SPLITS
from esci_tournament.tasks.data.load import load_esci
from esci_tournament.tasks.data.split import assign_roles
from esci_tournament.tasks.data.validate import check_folder, raise_if_critical, validate


def crossing(dataset: Dataset) -> Dataset:
    """Move one pair of the first train query with several pairs to the test split."""
    pairs = dataset.pairs.copy()
    train = pairs[pairs["split"] == "train"]
    pairs.loc[train.index[train["query_id"] == train["query_id"].iloc[0]][-1], "split"] = "test"
    return replace(dataset, pairs=pairs)


def test_a_generated_world_passes_every_rule_but_its_size(tiny_dataset: Dataset) -> None:
    result = validate(tiny_dataset)
    assert [check.name for check in result.checks if not check.passed] == []
    raise_if_critical(result)


def test_data_docs_are_written_and_replaced(tiny_world: Path, tmp_path: Path) -> None:
    docs = tmp_path / "reports" / "docs"
    for _ in range(2):
        result = check_folder(tiny_world, docs)
        assert result.docs == docs / "index.html"
    assert "examples" in result.docs.read_text(encoding="utf-8")
    assert len(list((docs / "validations").rglob("*examples.html"))) == 1
    assert [path.name for path in docs.parent.iterdir()] == ["docs"]


def test_unusual_class_mix_warns_and_does_not_stop(tiny_dataset: Dataset) -> None:
    result = validate(tiny_dataset, bounds=Bounds(class_share={"C": (0.5, 0.9)}))
    assert result.passed
    assert [check.name for check in result.warnings] == ["share_C"]
    share = float(np.mean(tiny_dataset.pairs["label"] == 2))
    assert float(result.warnings[0].observed) == pytest.approx(share, rel=1e-4)


def test_few_rows_in_a_locale_warn(tiny_dataset: Dataset) -> None:
    result = validate(tiny_dataset, bounds=Bounds(rows_per_locale=10_000))
    assert [check.name for check in result.warnings] == ["rows_us", "rows_es", "rows_jp"]


def test_a_crossing_query_is_critical_in_small_data(tiny_dataset: Dataset) -> None:
    with pytest.raises(DataError, match="both splits"):
        raise_if_critical(validate(crossing(tiny_dataset)))


def test_a_crossing_query_is_a_warning_where_the_bounds_tolerate_it(tiny_dataset: Dataset) -> None:
    """The official release needs this: by its own counts one query is in both splits."""
    result = validate(crossing(tiny_dataset), bounds=Bounds(crossing_share=0.02, crossing_least_queries=50))
    assert result.passed
    assert [check.name for check in result.warnings] == ["splits_strictly_apart"]


def test_queries_that_differ_by_case_alone_are_a_warning_and_go_to_quarantine(tiny_dataset: Dataset) -> None:
    pairs = tiny_dataset.pairs.copy()
    train = pairs[pairs["split"] == "train"].iloc[0]
    test = pairs[(pairs["split"] == "test") & (pairs["locale"] == train["locale"])].iloc[0]
    here = pairs["query_id"] == test["query_id"]
    pairs.loc[here, "query"], pairs.loc[here, "query_key"] = f" {train['query'].upper()} ", train["query_key"]
    dataset = replace(tiny_dataset, pairs=pairs)
    result = validate(dataset)
    assert result.passed
    assert [check.name for check in result.warnings] == ["splits_strictly_apart"]
    roles = assign_roles(dataset, "blend", 0.25, 0.1, 5)["role"]
    assert set(roles[pairs["query_key"] == train["query_key"]]) == {"quarantine", "test"}


def test_ids_that_each_market_counts_for_itself_are_different_queries(tiny_dataset: Dataset) -> None:
    pairs = tiny_dataset.pairs.copy()
    pairs["query_id"] = pairs.groupby("locale", observed=True)["query_id"].transform(lambda ids: pd.factorize(ids)[0])
    assert validate(replace(tiny_dataset, pairs=pairs)).passed


def test_data_of_one_locale_says_nothing_of_the_others(tiny_dataset: Dataset) -> None:
    pairs = tiny_dataset.pairs[tiny_dataset.pairs["locale"] == "us"].reset_index(drop=True)
    result = validate(replace(tiny_dataset, pairs=pairs, events=None), bounds=Bounds(rows_per_locale=10_000))
    products = tiny_dataset.products[tiny_dataset.products["locale"] == "us"]
    assert [check.name for check in result.warnings] == ["rows_us", "rows_es", "rows_jp"]  # products are there
    alone = validate(replace(tiny_dataset, pairs=pairs, products=products.reset_index(drop=True), events=None))
    assert not [check for check in alone.checks if check.name in ("rows_es", "rows_jp")]


def test_data_without_a_test_pair_is_refused_unless_a_test_split_is_drawn(tiny_dataset: Dataset) -> None:
    pairs = tiny_dataset.pairs.assign(split=pd.Categorical(["train"] * len(tiny_dataset.pairs), SPLITS))
    dataset = replace(tiny_dataset, pairs=pairs)
    with pytest.raises(DataError, match=r"no pair is in the test split.*test_share = 0.2"):
        raise_if_critical(validate(dataset))
    assert validate(dataset, bounds=Bounds(test_share=0.2)).passed


def test_more_crossing_queries_than_tolerated_are_critical(tiny_dataset: Dataset) -> None:
    result = validate(crossing(tiny_dataset), bounds=Bounds(crossing_share=0.001, crossing_least_queries=50))
    assert [check.name for check in result.failures] == ["splits_apart"]


@pytest.mark.shared
def test_real_rows_pass(esci_sample: Path) -> None:
    result = validate(load_esci(esci_sample))
    assert [check.name for check in result.checks if not check.passed] == []
