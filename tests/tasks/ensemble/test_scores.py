import numpy as np
import pytest

from esci_tournament.registry.errors import CandidateError, LeakError, UsageError
from esci_tournament.tasks.ensemble.scores import MemberScores, stack


def scores(member="a", ids=(3, 1, 2), held_out=(True, True, True), probabilities=None):
    if probabilities is None:
        probabilities = [[0.7, 0.1, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1], [0.1, 0.1, 0.7, 0.1]]
    return MemberScores(
        member, np.array(ids, np.int64), np.array(probabilities, np.float32), np.array(held_out, dtype=bool)
    )


def test_rows_come_in_the_order_asked_for():
    columns = stack([scores(), scores("b", ids=(1, 2, 3))], np.array([1, 3]))
    assert columns.shape == (2, 2, 4)
    assert columns.dtype == np.float32
    assert columns.argmax(axis=2).tolist() == [[1, 0], [0, 2]]


def test_an_in_sample_row_is_a_leak_only_if_it_is_needed():
    partly = scores(held_out=(True, False, True))
    assert len(stack([partly], np.array([2, 3]))) == 2
    with pytest.raises(LeakError, match=r"a are in-sample for 1 of 3 pairs \(first: example_id 1\)"):
        stack([partly], np.array([1, 2, 3]))


def test_a_missing_row_is_named():
    with pytest.raises(LeakError, match=r"lack 1 of 2 pairs \(first: example_id 9\)"):
        stack([scores()], np.array([9, 1]))


@pytest.mark.parametrize("row", [[np.nan, 0.5, 0.5, 0], [np.inf, 0, 0, 0], [0.5, 0.6, 0.1, 0.1], [-0.1, 0.9, 0.1, 0.1]])
def test_what_is_no_distribution_loses(row):
    bad = scores(probabilities=[[0.7, 0.1, 0.1, 0.1], row, [0.1, 0.1, 0.7, 0.1]])
    with pytest.raises(CandidateError, match="example_id 1"):
        stack([bad], np.array([1, 2, 3]))


def test_an_id_twice_is_refused():
    with pytest.raises(UsageError, match="twice"):
        stack([scores(ids=(1, 1, 2))], np.array([1]))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="scores of a: 2 ids"):
        scores(ids=(1, 2))
