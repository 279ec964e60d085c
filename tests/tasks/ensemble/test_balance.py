"""The weight of rare classes is chosen by the primary metric, out of fold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from esci_tournament.tasks.ensemble.aggregate import AggregatorParameters
from esci_tournament.tasks.ensemble.balance import POWERS, Balance, choose_balance
from esci_tournament.tasks.ensemble.counts import all_metrics, confusion
from esci_tournament.tasks.ensemble.fitting import cross_validate, fit_aggregator, pair_weights

PARAMETERS = AggregatorParameters(threads=1, maximum_rounds=60)


def world(rng: np.random.Generator, shares: tuple[float, ...], queries: int = 400):
    """Return columns (n, 2, 4), labels and groups: two members that see the class through noise."""
    groups = np.repeat(rng.integers(1, 2**63, queries, dtype=np.uint64), 8)
    labels = rng.choice(4, len(groups), p=shares).astype(np.int8)
    seen = 0.7 * np.eye(4)[labels][:, None] + rng.normal(size=(len(labels), 2, 4))
    columns = np.exp(seen) / np.exp(seen).sum(axis=2, keepdims=True)
    return columns.astype(np.float32), labels, groups


def test_skewed_labels_are_balanced_for_macro_f1_and_it_pays_on_new_queries() -> None:
    rng = np.random.default_rng(3)
    columns, labels, groups = world(rng, (0.7, 0.2, 0.03, 0.07))
    balance = choose_balance(columns, labels, groups, PARAMETERS, "macro_f1")
    assert balance.power > 0
    assert len(balance.values) == len(POWERS)
    new, truth, _ = world(rng, (0.7, 0.2, 0.03, 0.07), 2000)
    found = {}
    for power in (0.0, balance.power):
        fitted = fit_aggregator(columns, labels, groups, ["a", "b"], replace(PARAMETERS, balance=power))
        found[power] = float(all_metrics(confusion(truth, fitted.predict(new)))["macro_f1"])
    assert found[balance.power] > found[0.0] + 0.02


def test_no_other_metric_is_given_up_for_the_declared_one() -> None:
    parts = world(np.random.default_rng(3), (0.7, 0.2, 0.03, 0.07))
    free, bound = (choose_balance(*parts, PARAMETERS, "macro_f1", margin).power for margin in (1.0, 0.01))
    assert bound < free
    accuracy = []
    for power in POWERS:
        found = cross_validate(*parts, replace(PARAMETERS, balance=power)).probabilities.argmax(axis=1)
        accuracy.append(float((found == parts[1]).mean()))
    assert max(accuracy) - accuracy[POWERS.index(free)] > 0.01
    assert max(accuracy) - accuracy[POWERS.index(bound)] <= 0.01


def test_accuracy_asks_for_the_most_probable_class() -> None:
    skewed = world(np.random.default_rng(3), (0.7, 0.2, 0.03, 0.07), 50)
    assert choose_balance(*skewed, PARAMETERS, "accuracy") == Balance(0.0, "accuracy")


def test_classes_of_one_size_weigh_one_at_any_power() -> None:
    np.testing.assert_allclose(pair_weights(np.tile(np.arange(4, dtype=np.int8), 25), 0.75), 1.0)


@pytest.mark.parametrize("power", [0.25, 0.5, 1.0])
def test_weights_have_mean_one_and_at_full_power_every_class_weighs_the_same(power: float) -> None:
    labels = np.repeat([0, 1, 2, 3], [700, 200, 30, 70]).astype(np.int8)
    weights = pair_weights(labels, power)
    assert weights is not None
    assert weights.mean() == pytest.approx(1.0)
    sums = np.bincount(labels, weights)
    if power == 1.0:
        np.testing.assert_allclose(sums, 250.0)
    else:
        assert (np.diff(sums[[2, 3, 1, 0]]) > 0).all()  # still in the order of their frequency
