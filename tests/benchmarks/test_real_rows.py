"""Splits of real rows: nobody learns from a query that is tested, and metrics are the usual ones."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.real_rows import metrics, plans, split
from esci_tournament.tasks.data.synthesize import synthesize


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return synthesize(tmp_path_factory.mktemp("world"), queries=120, behaviour=False)


def test_each_seed_draws_another_split_and_no_query_is_on_two_sides(world):
    tested = []
    for seed in (0, 1):
        for protocol in ("blend", "kfold"):
            pairs = split(world, seed).pairs
            keys = pairs["query_key"].to_numpy()
            for plan in plans(world, protocol, seed).values():
                sides = [set(keys[rows]) for rows in (plan.fit, plan.validation, plan.score)]
                assert sum(map(len, sides)) == len(set.union(*sides))
        tested.append(set(pairs.loc[pairs["split"] == "test", "example_id"]))
    assert 0.1 < len(tested[0]) / len(pairs) < 0.5
    assert tested[0] != tested[1]


def test_metrics_are_those_of_the_chosen_classes():
    found = metrics(np.array([0, 0, 1, 3]), np.array([0, 1, 1, 3]))
    assert found["accuracy"] == 0.75
    assert found["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 0 + 1) / 4)
