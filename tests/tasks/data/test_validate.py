"""Validation: passes, warnings, tolerated errors, and the Data Docs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from esci_tournament.registry.errors import DataError
from esci_tournament.tasks.data.dataset import Dataset
from esci_tournament.tasks.data.load import load_esci
from esci_tournament.tasks.data.rules import Bounds
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


def test_more_crossing_queries_than_tolerated_are_critical(tiny_dataset: Dataset) -> None:
    result = validate(crossing(tiny_dataset), bounds=Bounds(crossing_share=0.001, crossing_least_queries=50))
    assert [check.name for check in result.failures] == ["splits_apart"]


@pytest.mark.shared
def test_real_rows_pass(esci_sample: Path) -> None:
    result = validate(load_esci(esci_sample))
    assert [check.name for check in result.checks if not check.passed] == []
