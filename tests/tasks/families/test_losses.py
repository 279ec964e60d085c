"""Class weights: invariants."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esci_tournament.registry.errors import UsageError
from esci_tournament.tasks.families.losses import class_weights


def test_none_means_no_weights():
    assert class_weights(np.array([0, 1]), "none") is None


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.sampled_from(["balanced", "sqrt_balanced"]))
def test_the_mean_weight_over_the_labels_is_one_and_rarer_classes_weigh_no_less(labels, mode):
    weights = class_weights(np.array(labels), mode)
    assert weights[labels].mean() == pytest.approx(1, rel=1e-5)
    counts = np.bincount(labels, minlength=4)
    order = np.argsort(counts)
    assert (np.diff(weights[order]) <= 1e-6).all()


def test_square_root_is_between_balanced_and_none():
    labels = np.repeat([0, 1, 2, 3], [65, 20, 5, 10])
    balanced, root = class_weights(labels, "balanced"), class_weights(labels, "sqrt_balanced")
    assert balanced[2] / balanced[0] == pytest.approx(13)
    assert root[2] / root[0] == pytest.approx(13**0.5)


def test_what_cannot_mean_anything_is_refused():
    with pytest.raises(UsageError, match="'focal'"):
        class_weights(np.array([0]), "focal")
    with pytest.raises(UsageError, match="at least one label"):
        class_weights(np.array([], dtype=np.int8), "balanced")
