import numpy as np
from scipy.optimize import check_grad

from esci_tournament.tasks.ensemble.surrogate import Surrogate

MEMBERS = "abcd"


def rows(*sets):
    return np.array([[member in members for member in MEMBERS] for members in sets])


def gains(known, proposals, best):
    surrogate = Surrogate(len(MEMBERS))
    surrogate.learn(rows(*known), np.array(list(known.values())), best)
    return surrogate.beliefs(rows(*proposals)).expected_improvement(best)


def some_sets(random, count, models):
    return np.unique(random.random((count, models)) < 0.5, axis=0)


def test_the_set_that_joins_two_good_members_promises_most():
    known = {"a": 0.6, "b": 0.6, "c": 0.1, "d": 0.1, "ac": 0.61}
    promises = gains(known, ["ab", "cd", "bd"], 0.61)
    assert promises.argmax() == 0
    assert (promises > 0).all()


def test_a_set_already_known_to_be_worse_promises_nothing():
    assert gains({"a": 0.2, "b": 0.8, "ab": 0.9}, ["a"], 0.9)[0] < 0.01


def test_equal_values_are_no_division_by_zero():
    assert np.isfinite(gains({"a": 0.5, "b": 0.5}, ["ab"], 0.5)).all()


def test_how_bad_the_bad_sets_are_does_not_count():
    random = np.random.default_rng(2)
    sets = some_sets(random, 60, 8)
    values = 0.6 + 0.01 * sets[:, 0] + 0.01 * sets[:, 1] * sets[:, 2] + 0.002 * random.normal(size=len(sets))
    unknown, promises = some_sets(random, 30, 8), []
    for depth in (0.1, 0.5):
        deep = values.copy()
        deep[:8] = 0.6 - depth
        surrogate = Surrogate(8)
        surrogate.learn(sets, deep, deep.max())
        promises.append(surrogate.beliefs(unknown).expected_improvement(deep.max()))
    np.testing.assert_allclose(promises[0], promises[1])


def test_the_model_that_decides_gets_the_largest_weight():
    random = np.random.default_rng(0)
    sets = some_sets(random, 80, 10)
    surrogate = Surrogate(10)
    surrogate.learn(sets, 0.5 + 0.1 * sets[:, 3] + 0.01 * random.normal(size=len(sets)), 0.55)
    assert surrogate.parts()[0].argmax() == 3


def test_fits_may_be_added_in_any_order():
    random = np.random.default_rng(1)
    sets = some_sets(random, 40, 9)
    known, proposals = sets[:20], sets[20:]
    surrogate = Surrogate(9)
    surrogate.learn(known, 0.5 + known @ np.linspace(0, 0.1, 9), 0.7)
    first, second = surrogate.beliefs(proposals), surrogate.beliefs(proposals)
    for place in (0, 5):
        first.add(place, 0.7 + 0.01 * place)
    for place in (5, 0):
        second.add(place, 0.7 + 0.01 * place)
    np.testing.assert_allclose(first.expected_improvement(0.72), second.expected_improvement(0.72), atol=1e-9)


def test_the_gradient_is_that_of_the_density():
    random = np.random.default_rng(3)
    sets = some_sets(random, 30, 6).astype(float)
    values, surrogate = random.normal(size=len(sets)), Surrogate(6)
    logs = random.normal(-1, 0.5, size=8)
    error = check_grad(
        lambda at: surrogate._objective(at, sets, values)[0], lambda at: surrogate._objective(at, sets, values)[1], logs
    )
    assert error < 1e-4
