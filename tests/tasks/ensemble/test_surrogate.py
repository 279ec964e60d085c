import numpy as np

from esci_tournament.tasks.ensemble.surrogate import expected_improvement

MEMBERS = ("a", "b", "c", "d")


def test_the_set_that_joins_two_good_members_promises_most():
    known = {frozenset("a"): 0.6, frozenset("b"): 0.6, frozenset("c"): 0.1, frozenset("d"): 0.1, frozenset("ac"): 0.61}
    candidates = [frozenset("ab"), frozenset("cd"), frozenset("bd")]
    gains = expected_improvement(known, candidates, MEMBERS, 0.61)
    assert candidates[int(gains.argmax())] == frozenset("ab")
    assert (gains > 0).all()


def test_a_set_already_known_to_be_worse_promises_nothing():
    known = {frozenset("a"): 0.2, frozenset("b"): 0.8, frozenset("ab"): 0.9}
    gains = expected_improvement(known, [frozenset("a")], MEMBERS, 0.9)
    assert gains[0] < 0.01


def test_equal_values_are_no_division_by_zero():
    known = {frozenset("a"): 0.5, frozenset("b"): 0.5}
    assert np.isfinite(expected_improvement(known, [frozenset("ab")], MEMBERS, 0.5)).all()
