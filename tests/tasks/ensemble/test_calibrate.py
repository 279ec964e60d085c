"""Temperature and calibration error: invariants, and worlds with a known answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esci_tournament.registry.errors import UsageError
from esci_tournament.tasks.ensemble.calibrate import (
    calibrate,
    calibration_error,
    fit_temperature,
    reliability,
    tempered,
)


def world(seed: int, pairs: int = 6_000) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities that are right as they stand, and labels drawn from them."""
    chance = np.random.default_rng(seed)
    probabilities = chance.dirichlet(np.full(4, 0.6), pairs)
    labels = (chance.random((pairs, 1)) > probabilities.cumsum(axis=1)[:, :3]).sum(axis=1)
    return probabilities, labels


@pytest.mark.parametrize("spoilt_by", [0.4, 1.0, 3.0])
def test_the_temperature_that_spoilt_probabilities_is_found_again(spoilt_by):
    probabilities, labels = world(1)
    assert fit_temperature(tempered(probabilities, spoilt_by), labels) == pytest.approx(1 / spoilt_by, rel=0.06)


def test_a_model_that_is_too_sure_is_mended_on_other_pairs():
    probabilities, labels = world(2)
    sure = tempered(probabilities, 0.3)
    found = calibrate(fit_temperature(sure[:3000], labels[:3000]), sure[3000:], labels[3000:])
    assert found.temperature > 2
    assert found.error > 0.1
    assert found.error_after < 0.03


def test_the_error_is_the_gap_weighted_by_pairs():
    # Two bins: confidence 0.9 and right 1 of 2; confidence 0.5 and right 2 of 2.
    probabilities = np.array([[0.9, 0.1, 0, 0]] * 2 + [[0.5, 0.3, 0.2, 0]] * 2)
    rows = reliability(probabilities, np.array([0, 1, 0, 0]))
    np.testing.assert_allclose(rows, [[0.5, 1.0, 2], [0.9, 0.5, 2]])
    assert calibration_error(rows) == pytest.approx((0.5 + 0.4) / 2)


@settings(max_examples=40)
@given(st.integers(0, 99), st.floats(0.05, 20))
def test_a_temperature_changes_no_label_and_sums_to_one(seed, temperature):
    probabilities, _ = world(seed, 50)
    after = tempered(probabilities, temperature)
    np.testing.assert_allclose(after.sum(axis=1), 1, atol=1e-5)
    best = probabilities.argmax(axis=1)
    np.testing.assert_allclose(after[np.arange(50), best], after.max(axis=1))


def test_every_pair_is_in_one_bin():
    probabilities, labels = world(3, 500)
    assert sum(pairs for _, _, pairs in reliability(probabilities, labels)) == 500
    assert reliability(np.array([[1.0, 0, 0, 0]]), np.array([0])) == [[1.0, 1.0, 1.0]]


def test_zeros_that_turn_out_wrong_do_not_break_it():
    assert np.isfinite(fit_temperature(np.eye(4), np.array([0, 1, 2, 0])))


def test_no_pair_is_an_error():
    with pytest.raises(UsageError, match="needs pairs"):
        fit_temperature(np.zeros((0, 4)), np.zeros(0, int))
