import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from esci_tournament.registry.errors import UsageError
from esci_tournament.tasks.ensemble.counts import (
    CONFIDENCE_BINS,
    all_metrics,
    calibration_error,
    confidence_gaps,
    confusion,
    confusion_by_query,
    influences,
    metric_of,
    metrics_of,
)

labelled = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=60)


@settings(max_examples=50)
@given(labelled)
def test_metrics_are_those_of_scikit_learn(rows):
    truth, predicted, _ = (np.array(column) for column in zip(*rows, strict=True))
    ours = metrics_of(confusion(truth, predicted))
    classes = sorted(set(truth.tolist()))
    assert ours["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    assert ours["macro_f1"] == pytest.approx(f1_score(truth, predicted, labels=classes, average="macro"))
    assert ours["weighted_f1"] == pytest.approx(f1_score(truth, predicted, average="weighted", zero_division=0))


@settings(max_examples=30)
@given(labelled, st.randoms())
def test_counts_of_queries_add_up_and_do_not_depend_on_row_order(rows, random):
    truth, predicted, query = (np.array(column) for column in zip(*rows, strict=True))
    keys, counts = confusion_by_query(truth, predicted, query.astype(np.uint64))
    assert (counts.sum(axis=0) == confusion(truth, predicted)).all()
    assert keys.tolist() == sorted(set(query.tolist()))
    order = list(range(len(rows)))
    random.shuffle(order)
    shuffled = confusion_by_query(truth[order], predicted[order], query[order].astype(np.uint64))[1]
    assert (shuffled == counts).all()


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_influences_are_the_derivatives_of_the_metrics(seed):
    counts = np.random.default_rng(seed).integers(0, 9, size=(6, 4, 4))
    step, whole = 1e-6, counts.sum(axis=0)
    moved = influences(counts)
    for query in range(6):
        change = all_metrics(whole + step * counts[query])
        for name, before in all_metrics(whole).items():
            np.testing.assert_allclose((change[name] - before) / step, moved[name][query], atol=1e-4)


def test_an_empty_matrix_has_metrics_of_zero():
    metrics = all_metrics(np.zeros((4, 4)))
    assert [float(metrics[name]) for name in ("accuracy", "macro_f1", "weighted_f1")] == [0, 0, 0]


def test_an_unknown_metric_is_named():
    with pytest.raises(UsageError, match="'recall' is unknown"):
        metric_of("recall", np.eye(4))


def test_calibration_error_is_that_of_the_definition():
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(4), size=300).astype(np.float32)
    labels = random.integers(4, size=300).astype(np.int8)
    gaps = confidence_gaps(labels, probabilities, random.integers(20, size=300).astype(np.uint64))
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * CONFIDENCE_BINS).astype(int), CONFIDENCE_BINS - 1)
    expected = sum(
        abs(confidence[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean() for b in set(bins.tolist())
    )
    assert calibration_error(gaps.sum(axis=0), 300) == pytest.approx(expected, abs=1e-6)
