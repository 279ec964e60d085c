import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import zeta

from esci_tournament.registry.errors import UsageError
from esci_tournament.tasks.ensemble.spending import SPENDABLE, History, look_at


@given(st.integers(1, 300), st.floats(0.001, 0.2))
def test_looks_at_the_same_pairs_spend_the_series(number, alpha):
    look = look_at(History(number - 1), alpha)
    assert look.level == pytest.approx(SPENDABLE * alpha * number**-1.5 / zeta(1.5))
    spent = sum(look_at(History(before), alpha).level for before in range(number))
    assert spent <= alpha
    assert look.left == pytest.approx(1 - spent / (SPENDABLE * alpha), abs=1e-9)
    assert look.level == pytest.approx(look_at(History(number - 1, number - 1, spent - look.level), alpha).level)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.floats(0.001, 0.2)), min_size=1, max_size=200),
    st.floats(0.01, 0.2),
)
def test_all_looks_of_a_home_stay_below_alpha_however_its_data_and_its_alpha_move(weeks, most):
    looks, spent = 0, 0.0
    for share, promoted, alpha in weeks:
        look = look_at(History(looks, share * looks, spent), min(alpha, most))
        assert 0 <= look.level <= min(alpha, most)
        if not promoted:
            looks, spent = looks + 1, spent + look.level
        assert spent <= most


def test_each_look_has_less_than_the_one_before():
    levels = [look_at(History(before), 0.05).level for before in range(100)]
    assert levels == sorted(levels, reverse=True)
    assert levels[0] > 0.05 / 4


@given(st.integers(1, 100), st.floats(0, 1), st.floats(0, 1))
def test_the_more_pairs_are_new_the_more_of_the_rest_is_given(looks, one, other):
    few, many = sorted((one, other))
    fresh, stale = (look_at(History(looks, share * looks), 0.05).level for share in (few, many))
    assert fresh >= stale >= look_at(History(looks), 0.05).level * (1 - 1e-9)
    assert fresh <= look_at(History(), 0.05).level


def test_little_left_is_said_with_what_helps():
    assert "fresh labels" not in look_at(History(), 0.05).sentence
    assert "fresh labels are given more of it" in look_at(History(30), 0.05).sentence


@pytest.mark.parametrize("before", [History(-1), History(3, seen=4), History(3, seen=-1), History(3, spent=-0.1)])
def test_nonsense_is_refused(before):
    with pytest.raises(UsageError):
        look_at(before, 0.05)
