import pytest
from hypothesis import given
from hypothesis import strategies as st

from esci_tournament.registry.errors import UsageError
from esci_tournament.tasks.ensemble.spending import SPENDABLE, look_at


@given(st.integers(1, 300), st.floats(0.001, 0.2))
def test_all_looks_together_never_spend_more_than_alpha(looks, alpha):
    spent = sum(look_at(before, alpha).level for before in range(looks))
    assert spent <= alpha
    assert look_at(looks - 1, alpha).left == pytest.approx(1 - spent / (SPENDABLE * alpha), abs=1e-9)


def test_each_look_has_less_than_the_one_before():
    levels = [look_at(before, 0.05).level for before in range(100)]
    assert levels == sorted(levels, reverse=True)
    assert levels[0] > 0.05 / 4


def test_little_left_is_said_with_what_renews_it():
    assert "fresh test labels" not in look_at(0, 0.05).sentence
    assert "fresh test labels renew it" in look_at(30, 0.05).sentence


def test_nonsense_is_refused():
    with pytest.raises(UsageError):
        look_at(-1, 0.05)
