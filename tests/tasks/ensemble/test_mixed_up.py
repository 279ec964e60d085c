"""Columns in another order are noticed; weak, skewed and overconfident models are not taken for such."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esci_tournament.registry.labels import LABELS
from esci_tournament.tasks.ensemble.mixed_up import aucs, mixed_up

MIX = [0.44, 0.34, 0.06, 0.16]


def world(
    seed: int, strength: float, pairs: int = 3000
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.random.Generator]:
    """Labels, queries, and the log-odds of a model that hears of the label with some strength."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(4, pairs, p=MIX)
    signal = rng.normal(size=(pairs, 4)) + strength * np.eye(4)[labels]
    return labels, np.repeat(np.arange(pairs // 10, dtype=np.uint64), 10), signal, rng


def probabilities(signal: np.ndarray) -> np.ndarray:
    raised = np.exp(signal - signal.max(axis=1, keepdims=True))
    return (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("order", [order for order in permutations(range(4)) if order != (0, 1, 2, 3)])
def test_every_other_order_of_an_ordinary_model_is_found(order):
    labels, groups, signal, _ = world(0, 1.0)
    right = probabilities(signal)
    columns = np.stack([right[:, order], right], axis=1)
    (found,) = mixed_up(columns, labels, groups, ["guest/1", "honest/1"])
    assert (found.member, found.order) == ("guest/1", "".join(LABELS[number] for number in order))
    assert found.found > found.given + 0.05
    assert "guest/1" in found.sentence


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    strength=st.floats(0, 3),
    skew=st.lists(st.floats(-4, 4), min_size=4, max_size=4),
    temperature=st.floats(0.1, 10),
)
def test_a_model_in_order_is_never_suspected_however_weak_skewed_or_sure_it_is(seed, strength, skew, temperature):
    labels, groups, signal, _ = world(seed, strength)
    columns = probabilities(temperature * signal + np.array(skew))[:, None]
    assert mixed_up(columns, labels, groups, ["honest/1"]) == []


def test_a_model_of_grades_alone_is_in_order():
    """It hears how relevant a pair is, and nothing of what a complement is."""
    labels, groups, _, rng = world(1, 1.0)
    relevance = np.array([2.0, 0.7, 0.2, -1.0])[labels] + rng.normal(size=len(labels))
    columns = probabilities(-((relevance[:, None] - np.array([2.0, 0.7, 0.2, -1.0])) ** 2))[:, None]
    assert mixed_up(columns, labels, groups, ["grades/1"]) == []


def test_nothing_is_said_where_a_class_is_too_rare():
    labels, groups, signal, _ = world(2, 2.0, pairs=200)
    assert mixed_up(probabilities(signal)[:, None, [1, 0, 2, 3]], labels, groups, ["guest/1"]) == []


def test_areas_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    labels, _, signal, _ = world(3, 1.0, pairs=500)
    columns = probabilities(signal).round(2)  # with ties
    wanted = [[metrics.roc_auc_score(labels == one, columns[:, place]) for one in range(4)] for place in range(4)]
    np.testing.assert_allclose(aucs(columns, labels), wanted, atol=1e-12)
