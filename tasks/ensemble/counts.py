"""Metrics from counts: a 4x4 confusion matrix a query is all that the judge needs of a test split."""

from __future__ import annotations

import numpy as np

from registry.errors import UsageError

CLASSES = 4
METRICS = ("accuracy", "macro_f1", "weighted_f1")
CONFIDENCE_BINS = 15


def confusion(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the confusion matrix, int64 (4, 4), rows the true label, columns the predicted one."""
    cells = np.asarray(labels, np.int64) * CLASSES + np.asarray(predicted, np.int64)
    return np.bincount(cells, minlength=CLASSES**2).reshape(CLASSES, CLASSES)


def confusion_by_query(labels: np.ndarray, predicted: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the queries in ascending order, uint64 (q,), and the confusion matrix of each, int32 (q, 4, 4).

    Args:
        labels, predicted: int8 (n,), classes in the order E, S, C, I.
        groups: uint64 (n,), query keys.
    """
    keys, inverse = np.unique(np.asarray(groups, np.uint64), return_inverse=True)
    cells = inverse * CLASSES**2 + np.asarray(labels, np.int64) * CLASSES + np.asarray(predicted, np.int64)
    counts = np.bincount(cells, minlength=len(keys) * CLASSES**2)
    return keys, counts.reshape(len(keys), CLASSES, CLASSES).astype(np.int32)


def confidence_gaps(labels: np.ndarray, probabilities: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return, for each query in ascending order and each confidence bin, the sum of confidence minus correctness.

    The expected calibration error (Naeini et al. 2015) over any set of queries is the sum over bins of the absolute
    summed gaps, divided by the number of pairs: so the gaps of a query are all that resampling needs.

    Args:
        labels: int8 (n,). probabilities: float32 (n, 4). groups: uint64 (n,).

    Returns:
        float64 (q, 15).
    """
    keys, inverse = np.unique(np.asarray(groups, np.uint64), return_inverse=True)
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * CONFIDENCE_BINS).astype(np.int64), CONFIDENCE_BINS - 1)
    # Sums of floats depend on their order: sort, so that the order of the rows does not matter
    order = np.lexsort((correct, confidence, bins, inverse))
    cells = (inverse * CONFIDENCE_BINS + bins)[order]
    sums = np.bincount(cells, weights=(confidence - correct)[order], minlength=len(keys) * CONFIDENCE_BINS)
    return sums.reshape(len(keys), CONFIDENCE_BINS)


def class_f1(counts: np.ndarray) -> np.ndarray:
    """Return the F1 of each class, float64 (..., 4), of confusion matrices (..., 4, 4); 0 where a class never occurs."""
    counts = np.asarray(counts, np.float64)
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    either = counts.sum(axis=-1) + counts.sum(axis=-2)
    return np.divide(2 * hits, either, out=np.zeros_like(hits), where=either > 0)


def accuracy(counts: np.ndarray) -> np.ndarray:
    """Return the share of right labels, float64 (...,), of confusion matrices (..., 4, 4); 0 for an empty one."""
    counts = np.asarray(counts, np.float64)
    total = counts.sum(axis=(-2, -1))
    hits = np.trace(counts, axis1=-2, axis2=-1)
    return np.divide(hits, total, out=np.zeros_like(total), where=total > 0)


def macro_f1(counts: np.ndarray) -> np.ndarray:
    """Return the mean F1 over the classes that occur in the truth, float64 (...,).

    The same as scikit-learn's wherever each class that is predicted also occurs. A class that the truth lacks is left
    out for both sides of a comparison, so that one stray prediction in a small locale does not swing the difference.
    """
    present = np.asarray(counts).sum(axis=-1) > 0
    number = present.sum(axis=-1)
    total = (class_f1(counts) * present).sum(axis=-1)
    return np.divide(total, number, out=np.zeros_like(total), where=number > 0)


def weighted_f1(counts: np.ndarray) -> np.ndarray:
    """Return the mean F1 weighted by how often each class is true, float64 (...,)."""
    truth = np.asarray(counts, np.float64).sum(axis=-1)
    total = truth.sum(axis=-1)
    hits = (class_f1(counts) * truth).sum(axis=-1)
    return np.divide(hits, total, out=np.zeros_like(total), where=total > 0)


_FUNCTIONS = {"accuracy": accuracy, "macro_f1": macro_f1, "weighted_f1": weighted_f1}


def metric_of(name: str, counts: np.ndarray) -> np.ndarray:
    """Return the metric `name` of confusion matrices (..., 4, 4), float64 (...,).

    Raises:
        UsageError: if there is no such metric.
    """
    if name not in _FUNCTIONS:
        raise UsageError(f"metric {name!r} is unknown; choose one of {', '.join(METRICS)}")
    return _FUNCTIONS[name](counts)


def metrics_of(counts: np.ndarray) -> dict[str, float]:
    """Return accuracy, macro F1 and weighted F1 of one confusion matrix (4, 4)."""
    return {name: float(metric_of(name, counts)) for name in METRICS}


def calibration_error(gaps: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return the expected calibration error, float64 (...,), of summed gaps (..., 15) over `pairs` (...,) pairs."""
    return np.abs(np.asarray(gaps, np.float64)).sum(axis=-1) / np.maximum(pairs, 1)
