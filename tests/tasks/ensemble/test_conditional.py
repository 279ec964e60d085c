"""The gain given that it won: laws of the estimate and the interval, and how often they are right."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from esci_tournament.tasks.ensemble.bootstrap import Difference, quantile
from esci_tournament.tasks.ensemble.conditional import conditional, given_that_it_won, reach
from esci_tournament.tasks.ensemble.verdict import Check


@given(excess=st.floats(0, 30), cut=st.floats(-1, 1), error=st.floats(1e-4, 10), limit=st.floats(3, 12))
def test_the_interval_holds_the_value_and_the_estimate_which_is_not_above_it(excess, cut, error, limit):
    value = cut + excess * error
    estimate, low, high = conditional(value, error, cut, limit)
    assert low <= estimate <= value <= high
    assert low >= value - limit * error - 1e-9
    shifted = conditional(3 * value + 1, 3 * error, 3 * cut + 1, limit)
    assert shifted == pytest.approx([3 * one + 1 for one in (estimate, low, high)], abs=2e-4 * error)


@given(cut=st.floats(-3, 3), excess=st.lists(st.floats(1e-6, 12), min_size=2, max_size=2, unique=True))
def test_all_three_rise_with_the_value(cut, excess):
    lesser, greater = (conditional(cut + one, 1.0, cut) for one in sorted(excess))
    assert all(one <= other + 1e-9 for one, other in zip(lesser, greater, strict=True))


def test_far_from_the_cut_nothing_is_taken_away_and_just_above_it_the_limit_holds():
    assert conditional(10.0, 1.0, 0.0) == pytest.approx((10.0, 8.0, 12.0), abs=0.02)
    estimate, low, high = conditional(1e-12, 1.0, 0.0, limit=4.0)
    assert (estimate, low) == (pytest.approx(-4), pytest.approx(-4))
    assert 1.6 < high < 1.8
    assert conditional(0.3, 0.0, 0.1) == (0.3, 0.3, 0.3)


def test_it_is_exact_far_out_in_the_tail():
    estimate, low, _ = conditional(1.1, 1.0, 1.0, limit=38.0)
    assert norm.logsf(1.1 - estimate) - norm.logsf(1.0 - estimate) == pytest.approx(np.log(0.5), abs=1e-9)
    assert low < -20
    assert np.isfinite(low)
    assert np.isfinite(conditional(301.0, 1.0, 300.0, reach(300.0))).all()


@pytest.mark.parametrize(("value", "error"), [(0.9, 1.0), (2.0, -1.0), (2.0, np.inf), (np.nan, 1.0)])
def test_what_would_not_have_been_reported_is_refused(value, error):
    with pytest.raises(ValueError, match="is not reported"):
        conditional(value, error, 1.0)


@pytest.mark.parametrize("true", [0.0, 1.0, 2.0, 3.0])
def test_of_winners_half_are_above_the_estimate_and_19_in_20_in_the_interval(true):
    cut = 2.16  # standard errors above the threshold: the first look
    shares = (np.arange(400) + 0.5) / 400
    winners = true + norm.isf(shares * norm.sf(cut - true))
    found = np.array([conditional(value, 1.0, cut, reach(cut)) for value in winners])
    assert (found[:, 0] > true).mean() == pytest.approx(0.5, abs=0.01)
    assert 0.945 <= ((found[:, 1] <= true) & (true <= found[:, 2])).mean() <= 0.965


@pytest.mark.parametrize("level", [0.01, 0.0005])  # the percentile makes the bound, and Student's alone
def test_the_cut_is_the_least_gain_that_would_have_won(level):
    resampled = 0.05 + 0.01 * np.random.default_rng(0).standard_exponential(2000) * -1 + 0.01
    gain = Difference(0.05, resampled, 500, 80.0)
    check = Check("cheaper", True, True, gain.lower(level), -0.005, "")
    found = given_that_it_won(gain, [check], "cheaper")
    least = Difference(found["cut"], resampled + found["cut"] - 0.05, 500, 80.0)
    assert least.lower(level) == pytest.approx(-0.005, abs=1e-12)
    assert found["cut"] + 0.005 >= quantile(level, 80.0) * gain.error - 1e-12
    assert found["low"] < found["estimate"] <= found["measured"] == 0.05 < found["high"]
    assert given_that_it_won(gain, [check], "") is None
