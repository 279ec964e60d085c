"""Contributions as `shap.Explanation`, and the comparison with what the package computes."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.worlds import make_world
from esci_tournament.registry.errors import TournamentError
from esci_tournament.tasks.ensemble.aggregate import AggregatorParameters
from esci_tournament.tasks.ensemble.attribution import tabulate
from esci_tournament.tasks.ensemble.explanation import check_with_shap, explanation, from_json, to_json
from esci_tournament.tasks.ensemble.fitting import Choice, fit_aggregator

CHOICES = {"trees": Choice(rounds=15), "linear alone": Choice(0), "one member": Choice(0, alone=1)}


@pytest.fixture(scope="module")
def world():
    return make_world(1, rows=1200, members=3)


def fitted(world, choice=CHOICES["trees"]):
    parts = world.columns, world.labels, world.groups, world.members
    return fit_aggregator(*parts, AggregatorParameters(threads=1), choice)


@pytest.mark.parametrize("choice", CHOICES)
def test_two_hundred_pairs_and_more_agree_with_the_package(world, choice):
    found = check_with_shap(fitted(world, CHOICES[choice]), world.columns)
    assert found.rows >= 200
    assert found.gap < 1e-9


def test_a_wrong_table_is_found(world):
    aggregator = fitted(world)
    forest = tabulate(aggregator)
    wrong = replace(forest, table=forest.table * (1 + 1e-4))
    with pytest.raises(TournamentError, match=r"differ from those of shap .* by .* The ranking would be wrong"):
        check_with_shap(aggregator, world.columns, wrong)


def test_a_wrong_weight_of_the_linear_part_is_found(world):
    aggregator = fitted(world, CHOICES["linear alone"])
    other = fitted(make_world(2, rows=1200, members=3), CHOICES["linear alone"])
    with pytest.raises(TournamentError, match="differ from those of shap"):
        check_with_shap(aggregator, world.columns, replace(tabulate(aggregator), pool=other.pool))


def test_values_and_base_add_up_to_the_raw_scores_and_data_are_the_members_own_probabilities(world):
    aggregator = fitted(world)
    found = explanation(aggregator, world.columns[:20])
    total = found.values.sum(axis=1) + found.base_values
    np.testing.assert_allclose(total, aggregator.raw_scores(world.columns[:20]), atol=1e-9)
    one = found[3, :, "Substitute"]
    np.testing.assert_array_equal(one.data, world.columns[3, :, 1])
    assert one.feature_names == list(world.members)
    assert found[:, :, "Exact"].shape == (20, 3)


def test_what_is_written_is_read_again_to_four_decimals(world):
    found = explanation(fitted(world), world.columns[:20])
    text = json.dumps(to_json(found))
    assert "." not in text.replace("0.0001", "").replace("1e-", "")  # whole numbers
    again = from_json(json.loads(text))
    np.testing.assert_allclose(again.values, found.values, atol=5.1e-5)
    np.testing.assert_allclose(again.base_values, found.base_values, atol=5.1e-5)
    assert (again.feature_names, again.output_names) == (found.feature_names, found.output_names)
