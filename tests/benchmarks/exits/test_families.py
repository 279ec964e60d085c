"""The truth of a generated world is what many of its pairs do."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.exits.families import FAMILIES, Family, make, play, truth
from esci_tournament.tasks.ensemble.early_exit import margins

THRESHOLDS = np.array([1.0, 0.8, np.inf])


@pytest.mark.parametrize(
    "family",
    [
        Family(),
        Family(spread=4.0),
        Family(whole=0.05),
        Family(whole=0.05, others=False, uneven=True),
        Family(giants=1, giants_whole=1),
        Family(products=0.05),
    ],
)
def test_the_expected_share_is_what_pairs_do(family: Family) -> None:
    world = make(np.random.default_rng(0), family, 20_000)
    leaves = np.stack([margins(one) for one in world.scores[:-1]], axis=1) >= THRESHOLDS
    stage = np.where(leaves.any(axis=1), leaves.argmax(axis=1), 3)
    label = np.stack([one.argmax(axis=1) for one in world.scores], axis=1)
    share, saved = truth(THRESHOLDS, family, world.whole)
    assert (label[np.arange(len(stage)), stage] != label[:, -1]).mean() == pytest.approx(share, rel=0.07)
    assert 1 - (stage + 1).mean() / 4 == pytest.approx(saved, rel=0.01)


def test_a_world_is_played_by_both_rules() -> None:
    ours, theirs = play(0, FAMILIES["1.2 % of queries change whole"], 100, 0)
    assert ours == (0.0, 0.0, 0.0, 0.0)  # a hundred queries show nothing at half a per cent
    assert len(theirs) == 4
