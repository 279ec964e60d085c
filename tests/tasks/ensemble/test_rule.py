"""The decision rule: a sweep counts what each offset gives, tuned offsets pay on new queries, and harm nobody."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esci_tournament.tasks.ensemble.counts import METRICS, confusion, metrics_of
from esci_tournament.tasks.ensemble.rule import (
    NO_OFFSETS,
    along_frequencies,
    best_of,
    decide,
    merit,
    sweep,
    tune,
    tune_once,
)


def world(seed: int, rows: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return raw scores that are calibrated, labels of which few are rare classes, and query keys."""
    random = np.random.default_rng(seed)
    prior = np.log([0.6, 0.25, 0.05, 0.1])
    labels = random.choice(4, rows, p=np.exp(prior))
    scores = 1.2 * (random.normal(size=(rows, 4)) + 1.2 * np.eye(4)[labels]) + prior
    return scores.round(2), labels, np.repeat(np.arange(rows // 10, dtype=np.uint64), 10)  # ties occur


@given(st.integers(0, 10_000), st.integers(0, 3))
@settings(max_examples=40)
def test_a_sweep_counts_what_each_offset_decides(seed: int, one: int) -> None:
    scores, labels, _ = world(seed)
    tried, counts = sweep(scores, labels, one)
    for place in np.random.default_rng(seed).choice(len(tried), 12, replace=False):
        offsets = NO_OFFSETS.copy()
        offsets[one] = tried[place]
        near = np.abs(scores + offsets - (scores + offsets)[:, [one]])
        clear = (np.delete(near, one, axis=1) > 1e-9).all(axis=1)  # of equal scores rounding decides
        if clear.all():
            assert counts[place].tolist() == confusion(labels, decide(scores, offsets)).tolist()
        assert counts[place].sum() == len(labels)


@given(st.integers(0, 10_000), st.sampled_from([tune_once, along_frequencies]))
@settings(max_examples=40)
def test_offsets_tuned_once_are_never_worse_than_none(seed: int, once: Callable[..., np.ndarray]) -> None:
    scores, labels, _ = world(seed)
    targets = dict.fromkeys(METRICS, 0.5)
    tuned = once(scores, labels, "macro_f1", targets)
    before, after = (merit(confusion(labels, decide(scores, one)), "macro_f1", targets) for one in (NO_OFFSETS, tuned))
    assert after >= before - 1e-9
    assert tuned[0] == 0


def test_macro_f1_gains_without_a_loss_of_accuracy_against_the_best_member() -> None:
    scores, labels, groups = world(3, rows=4000)
    other = scores + 0.6 * np.random.default_rng(1).normal(size=scores.shape)  # members that know less
    given_by = np.stack([other.argmax(axis=1), (other + np.log([1, 1.3, 4, 2])).argmax(axis=1)], axis=1)
    rule = tune(scores, labels, groups, given_by, "macro_f1")
    targets = best_of(labels, given_by, "macro_f1")
    plain, tuned = (metrics_of(confusion(labels, decide(scores, one))) for one in (NO_OFFSETS, rule.offsets))
    assert tuned["macro_f1"] > plain["macro_f1"] + 0.01
    assert all(tuned[name] > targets[name] for name in METRICS)
    fresh_scores, fresh, _ = world(4, rows=4000)
    assert metrics_of(confusion(fresh, decide(fresh_scores, rule.offsets)))["macro_f1"] > (
        metrics_of(confusion(fresh, decide(fresh_scores)))["macro_f1"] + 0.01
    )


def test_what_is_expected_of_new_queries_lies_between_those_seen_and_those_left_out() -> None:
    errors = []
    for seed in range(30):
        scores, labels, groups = world(seed, rows=400)
        rule = tune(scores, labels, groups, scores.argmax(axis=1)[:, None], "macro_f1")
        assert rule.counts.sum() == pytest.approx(len(labels))
        np.testing.assert_allclose(rule.counts.sum(axis=1), np.bincount(labels, minlength=4))
        fresh_scores, fresh, _ = world(100 + seed, rows=5_000)
        truth = metrics_of(confusion(fresh, decide(fresh_scores, rule.offsets)))["macro_f1"]
        errors.append(metrics_of(rule.counts)["macro_f1"] - truth)
    assert abs(np.mean(errors)) < 0.02


def test_neither_names_of_queries_nor_a_second_run_change_the_rule() -> None:
    scores, labels, groups = world(5, rows=600)
    given_by = scores.argmax(axis=1)[:, None]
    first = tune(scores, labels, groups, given_by, "macro_f1", seed=3)
    assert np.array_equal(first.offsets, tune(scores, labels, groups + 7, given_by, "macro_f1", seed=3).offsets)
    assert not np.array_equal(first.offsets, tune(scores, labels, groups, given_by, "macro_f1", seed=4).offsets)


@pytest.mark.parametrize("metric", METRICS)
def test_a_gain_does_not_pay_for_a_loss_on_another_metric(metric: str) -> None:
    better, worse = np.diag([60.0, 25, 5, 10]), np.diag([60.0, 25, 5, 10])
    worse[0, 0], worse[0, 3] = 50, 10  # accuracy and both F1 fall
    targets = metrics_of(better)
    assert merit(better, metric, targets) > merit(worse, metric, targets)
    lower = {name: value - 0.01 for name, value in targets.items()}
    assert merit(better, metric, lower) == pytest.approx(0.01 + 0.5 * 0.01)
