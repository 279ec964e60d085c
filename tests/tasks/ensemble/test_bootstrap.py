import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esci_tournament.tasks.ensemble.bootstrap import FEWEST, Difference, effective_queries, resampled_sums


@pytest.fixture(scope="module")
def values():
    return np.random.default_rng(0).integers(0, 20, size=(300, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def strata():
    return np.repeat([0, 1], [250, 50])


def test_a_resample_draws_as_many_queries_in_each_stratum(strata):
    sums = resampled_sums(np.ones((300, 1), np.float32), strata, 50, seed=0)
    assert (sums[:, 0, 0] == 250).all()
    assert (sums[:, 1, 0] == 50).all()


def test_mean_and_spread_are_those_of_the_bootstrap(values, strata):
    sums = resampled_sums(values, strata, 20_000, seed=0)[:, 1]
    rows = values[strata == 1]
    np.testing.assert_allclose(sums.mean(axis=0), rows.sum(axis=0), rtol=0.005)
    np.testing.assert_allclose(sums.std(axis=0), np.sqrt(50) * rows.std(axis=0), rtol=0.03)


def test_neither_threads_nor_blocks_change_a_bit_but_the_seed_does(values, strata, monkeypatch):
    whole = resampled_sums(values, strata, 200, seed=1, threads=1)
    monkeypatch.setattr("esci_tournament.tasks.ensemble.bootstrap._CELLS_AT_ONCE", 250 * 7)
    assert (resampled_sums(values, strata, 200, seed=1, threads=2) == whole).all()
    assert (resampled_sums(values, strata, 200, seed=2, threads=2) != whole).any()


def test_bounds_take_the_more_careful_of_percentile_and_student():
    skewed = np.concatenate([np.full(900, 0.0), np.full(100, -1.0)])
    change = Difference(0.0, skewed, 100, 100.0)
    assert change.lower(0.05) == -1.0
    assert change.lower(0.001) < -0.9  # one resample beyond it: Student's stands alone
    assert change.upper(0.05) > 0


def test_below_five_queries_nothing_is_known():
    change = Difference(0.1, np.full(100, 0.1), 4, 4.0)
    assert change.lower(0.05) == -np.inf
    assert change.upper(0.05) == np.inf


def test_a_few_differing_answers_are_as_few_however_many_queries_there_are():
    influence = np.zeros(1000)
    influence[:5] = 0.01
    assert effective_queries(influence) == pytest.approx(5)
    assert effective_queries(np.ones(1000)) == pytest.approx(1000)
    assert effective_queries(np.zeros(1000)) == 1000
    bold, careful = (
        Difference(0.02, np.random.default_rng(0).normal(0.02, 0.01, 1000), 1000, e) for e in (1000.0, 5.0)
    )
    assert careful.lower(0.001) < bold.lower(0.001)


@settings(max_examples=50)
@given(effective=st.floats(FEWEST, 500), recurring=st.floats(0, 4), scale=st.floats(0.01, 100), shift=st.floats(-9, 9))
def test_an_interval_holds_its_value_and_moves_and_stretches_with_it(effective, recurring, scale, shift):
    resampled = np.random.default_rng(0).normal(1.0, 1.0, 400)
    low, high = Difference(1.0, resampled, 600, effective, recurring).interval()
    assert low < 1.0 < high
    moved = Difference(scale + shift, scale * resampled + shift, 600, effective, scale**2 * recurring).interval()
    assert moved == pytest.approx((scale * low + shift, scale * high + shift))
    assert high > Difference(1.0, resampled, 600, effective + 1, recurring).interval()[1]
    assert high < Difference(1.0, resampled, 600, effective, recurring + 0.1).interval()[1]


@pytest.mark.parametrize(
    ("resampled", "queries", "effective", "answer"),
    [
        (np.arange(9.0), 900, FEWEST - 0.1, 0.0),
        (np.full(9, 0.5), 900, 900.0, 0.0),  # no query moves it: all answers are right, or both sides' the same
        (np.arange(9.0), 4, 4.0, 0.0),
        (np.arange(9.0), 900, 900.0, 1.4),  # a variance of 7.5 is less than that of four such answers
    ],
)
def test_where_too_little_is_known_there_is_no_interval(resampled, queries, effective, answer):
    assert Difference(0.5, resampled, queries, effective, answer=answer).interval() == (None, None)


def test_19_of_20_intervals_hold_the_truth():
    random, held = np.random.default_rng(1), []
    for _ in range(1000):
        sample = random.gamma(2.0, 0.5, size=60)
        means = sample[random.integers(60, size=(200, 60))].mean(axis=1)
        low, high = Difference(sample.mean(), means, 60, effective_queries(sample - sample.mean())).interval()
        held += [] if low is None else [low < 1.0 < high]
    assert len(held) > 950
    assert 0.93 <= np.mean(held) <= 0.97
