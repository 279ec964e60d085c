"""The data set on disk: workers read what was loaded, with the same types."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from esci_tournament.tasks.data.dataset import Dataset
from esci_tournament.tasks.data.store import (
    digest_of_test,
    open_dataset,
    read_frame,
    save_dataset,
    share_in_test,
    write_frame,
    write_test,
)


def test_a_data_set_comes_back_with_every_value_and_type(tiny_dataset: Dataset, tmp_path: Path) -> None:
    save_dataset(tiny_dataset, tmp_path)
    again = open_dataset(tmp_path)
    for name in ("pairs", "products", "events"):
        assert_frame_equal(getattr(again, name), getattr(tiny_dataset, name))
    assert (again.version, again.source) == (tiny_dataset.version, tiny_dataset.source)


def test_a_data_set_without_events_has_none_when_it_comes_back(tiny_dataset: Dataset, tmp_path: Path) -> None:
    save_dataset(replace(tiny_dataset, events=None), tmp_path)
    assert open_dataset(tmp_path).events is None


def test_a_frame_loses_its_index_and_keeps_its_text(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["", "赤い", "a\x00b", "\n"], "key": np.array([0, 2**64 - 1, 1, 2], np.uint64)})
    write_frame(frame.set_index(pd.Index([9, 7, 5, 3])), tmp_path / "frame.arrow")
    assert_frame_equal(read_frame(tmp_path / "frame.arrow"), frame)


labelled = st.dictionaries(st.integers(-(2**63), 2**63 - 1), st.integers(0, 3), min_size=1, max_size=20)


def as_pairs(labels: dict[int, int]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "query_key": np.array(list(labels), np.int64).astype(np.uint64),
            "product_id": [str(number % 7) for number in labels],
            "label": np.array(list(labels.values()), np.int8),
        }
    )


@given(labelled, st.randoms(use_true_random=False))
def test_the_digest_of_the_test_split_does_not_depend_on_the_order(labels: dict[int, int], random) -> None:
    shuffled = list(labels.items())
    random.shuffle(shuffled)
    assert digest_of_test(as_pairs(dict(shuffled))) == digest_of_test(as_pairs(labels))


@given(labelled, st.data())
def test_one_other_label_is_another_test_split(labels: dict[int, int], data) -> None:
    changed = data.draw(st.sampled_from(sorted(labels)))
    other = labels | {changed: (labels[changed] + data.draw(st.integers(1, 3))) % 4}
    assert digest_of_test(as_pairs(other)) != digest_of_test(as_pairs(labels))


def test_an_export_that_numbers_its_rows_anew_is_the_same_test_split(tmp_path: Path) -> None:
    pairs = as_pairs({1: 0, 2: 3, 9: 1}).assign(example_id=[1, 2, 3])
    again = pairs.iloc[::-1].assign(example_id=[70, 80, 90])
    assert digest_of_test(again) == digest_of_test(pairs)
    write_test(pairs, tmp_path)
    assert share_in_test(again, tmp_path) == 1
    assert share_in_test(pairs.assign(product_id="another"), tmp_path) == 0
    assert share_in_test(pairs.assign(label=[0, 3, 2]), tmp_path) == pytest.approx(2 / 3)


def test_what_an_earlier_release_wrote_is_compared_by_example_ids(tmp_path: Path) -> None:
    pairs = as_pairs({1: 0, 2: 3, 9: 1}).assign(example_id=[1, 2, 3])
    np.save(tmp_path / "answers.npy", np.array([8, 19, 99]))
    assert share_in_test(pairs, tmp_path) == pytest.approx(2 / 3)


def test_a_pair_more_is_another_test_split() -> None:
    assert digest_of_test(as_pairs({1: 0, 2: 0})) != digest_of_test(as_pairs({1: 0}))
