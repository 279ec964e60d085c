import numpy as np
import pytest

from benchmarks.worlds import make_world
from esci_tournament.tasks.ensemble.similarity import compare_members


@pytest.fixture(scope="module")
def likeness():
    world = make_world(5, rows=3000, members=3, kinds=("plain", "useless", "plain"))
    columns = world.columns.copy()
    columns[:, 2] = columns[:, 0] ** 1.05
    columns[:, 2] /= columns[:, 2].sum(axis=1, keepdims=True)
    return {(pair.first, pair.second): pair for pair in compare_members(columns, world.labels, ("a", "noise", "copy"))}


def test_a_near_copy_is_named_in_words(likeness):
    pair = likeness["a", "copy"]
    assert pair.near_copy
    assert pair.sentence.startswith("a and copy are near-copies: they give the same label to")


def test_noise_shares_no_errors_although_the_truth_is_shared(likeness):
    pair = likeness["a", "noise"]
    assert abs(pair.correlation) < 0.1
    assert not pair.near_copy
    assert "err differently" in pair.sentence


def test_every_two_members_are_compared_the_most_alike_first(likeness):
    assert list(likeness) == [
        ("a", "copy"),
        *sorted([("a", "noise"), ("noise", "copy")], key=lambda k: -likeness[k].correlation),
    ]


def test_a_copy_at_another_temperature_is_a_near_copy():
    world = make_world(5, rows=3000, members=2, kinds=("plain", "plain"))
    sharper = world.columns[:, :1].astype(np.float64) ** 4
    columns = np.concatenate([world.columns, (sharper / sharper.sum(axis=2, keepdims=True)).astype(np.float32)], axis=1)
    first = compare_members(columns, world.labels, ("a", "b", "sure"))[0]
    assert (first.first, first.second, first.near_copy) == ("a", "sure", True)
    assert first.correlation > 0.99
