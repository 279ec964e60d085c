"""Metrics from counts: the judge reads one 4x4 confusion matrix for each query of a test split."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from esci_tournament.registry import extensions
from esci_tournament.registry.errors import UsageError
from esci_tournament.registry.labels import CLASSES
from esci_tournament.tasks.ensemble.scores import MemberScores, stack

METRICS = ("accuracy", "macro_f1", "weighted_f1")
CONFIDENCE_BINS = 15
_TINY = 1e-300  # keeps 0 / 0 at 0


def confusion(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the confusion matrix of pairs.

    Args:
        labels: int (n,), true classes, index into `LABELS`.
        predicted: int (n,), predicted classes.

    Returns:
        int64 (4, 4), rows the true label, columns the predicted one.

    Example:
        >>> confusion(np.array([0, 0, 3]), np.array([0, 1, 3])).tolist()
        [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
    """
    cells = np.asarray(labels, np.int64) * CLASSES + np.asarray(predicted, np.int64)
    return np.bincount(cells, minlength=CLASSES**2).reshape(CLASSES, CLASSES)


def confusion_by_query(labels: np.ndarray, predicted: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the confusion matrix of each query.

    Args:
        labels: int8 (n,), true classes, index into `LABELS`.
        predicted: int8 (n,), predicted classes.
        groups: uint64 (n,), query keys.

    Returns:
        The queries in ascending order, uint64 (q,), and their matrices, int32 (q, 4, 4), true by predicted.
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
        labels: int8 (n,), index into `LABELS`.
        probabilities: float32 (n, 4).
        groups: uint64 (n,), query keys.

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


def all_metrics(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return every metric of confusion matrices.

    What has no pair is 0. The macro F1 is the mean over the classes that occur in the truth: the same as
    scikit-learn's wherever each predicted class also occurs. A class that the truth lacks is left out for both sides of
    a comparison, so that one stray prediction in a small locale does not swing the difference. The weighted F1 weights
    by how often a class is true.

    Args:
        counts: (..., 4, 4), true by predicted.

    Returns:
        float64: `accuracy`, `macro_f1` and `weighted_f1` (...,), and `f1` (..., 4), one value a class; all 0 to 1.
    """
    counts = np.asarray(counts, np.float64)
    # One product with a constant matrix is ten times faster than sums over axes of length four
    parts = counts.reshape(*counts.shape[:-2], CLASSES**2) @ _PARTS
    hits, truth, predicted = (parts[..., start : start + CLASSES] for start in (0, CLASSES, 2 * CLASSES))
    ones = np.ones(CLASSES)
    f1 = 2 * hits / np.maximum(truth + predicted, _TINY)
    total = np.maximum(truth @ ones, _TINY)
    present = (truth > 0).astype(np.float64)
    return {
        "accuracy": (hits @ ones) / total,
        "macro_f1": ((f1 * present) @ ones) / np.maximum(present @ ones, 1),
        "weighted_f1": ((f1 * truth) @ ones) / total,
        "f1": f1,
    }


def influences(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return how much each query moves each metric, to first order.

    Args:
        counts: (q, 4, 4), one confusion matrix a query; the metrics are those of their sum.

    Returns:
        float64, for each of the metrics (q,), for `f1` (q, 4).
    """
    parts = np.asarray(counts, np.float64).reshape(len(counts), CLASSES**2) @ _PARTS
    hits, truth, predicted = (parts[:, start : start + CLASSES] for start in (0, CLASSES, 2 * CLASSES))
    whole = all_metrics(np.asarray(counts).sum(axis=0))
    all_truth = truth.sum(axis=0)
    total = max(all_truth.sum(), 1.0)
    sizes = np.maximum(all_truth + predicted.sum(axis=0), 1.0)
    f1 = (2 * hits - whole["f1"] * (truth + predicted)) / sizes
    present = all_truth > 0
    return {
        "accuracy": (hits.sum(axis=1) - whole["accuracy"] * truth.sum(axis=1)) / total,
        "macro_f1": f1[:, present].sum(axis=1) / max(int(present.sum()), 1),
        "weighted_f1": (f1 @ all_truth + truth @ whole["f1"] - whole["weighted_f1"] * truth.sum(axis=1)) / total,
        "f1": f1,
    }


def metric_of(name: str, counts: np.ndarray) -> np.ndarray:
    """Return one metric of confusion matrices.

    Args:
        name: one of `METRICS`, or of a plug-in.
        counts: (..., 4, 4), true by predicted; a plug-in gets it as float64.

    Returns:
        float64 (...,); see :func:`all_metrics`.

    Raises:
        UsageError: if there is no such metric, or that of a plug-in gives something else than a number a matrix.
    """
    if name in METRICS:
        return all_metrics(counts)[name]
    counts = np.asarray(counts, np.float64)
    metric = extensions.load_function(extensions.METRICS, name)
    try:
        values = np.asarray(metric(counts), np.float64)
    except Exception as error:  # whatever a plug-in raises
        raise UsageError(f"metric {name!r} fails on counts of shape {counts.shape}: {error}") from error
    if values.shape != counts.shape[:-2] or not np.isfinite(values).all():
        raise UsageError(
            f"metric {name!r} gave {np.isfinite(values).sum()} finite values of shape {values.shape} for counts of "
            f"shape {counts.shape}; it has to give one finite number for each matrix"
        )
    return values


def influence_of(name: str, counts: np.ndarray) -> np.ndarray:
    """Return how much each query moves a metric, to first order.

    For a plug-in the derivative by each cell of the summed matrix is taken by central differences, so that it holds for
    any metric that is a smooth function of the counts.

    Args:
        name: One of `METRICS`, or of a plug-in.
        counts: (q, 4, 4), one confusion matrix a query.

    Returns:
        float64 (q,).

    Raises:
        UsageError: as :func:`metric_of`.
    """
    if name in METRICS:
        return influences(counts)[name]
    whole = np.asarray(counts, np.float64).sum(axis=0)
    step = 1e-4 * max(whole.sum(), 1.0)
    moved = step * np.eye(CLASSES**2).reshape(-1, CLASSES, CLASSES)
    below = np.minimum(moved, whole)  # a count does not fall below 0
    width = step + below.sum(axis=(1, 2))
    slope = (metric_of(name, whole + moved) - metric_of(name, whole - below)) / width
    return np.asarray(counts, np.float64).reshape(len(counts), -1) @ slope


def class_f1(counts: np.ndarray) -> np.ndarray:
    """Return the F1 of each class, float64 (..., 4), of confusion matrices (..., 4, 4)."""
    return all_metrics(counts)["f1"]


def macro_f1(counts: np.ndarray) -> np.ndarray:
    """Return the macro F1, float64 (...,), of confusion matrices (..., 4, 4); see :func:`all_metrics`."""
    return all_metrics(counts)["macro_f1"]


def _parts() -> np.ndarray:
    """Return the matrix that turns 16 cells into hits, true and predicted pairs of each class, float64 (16, 12)."""
    true, predicted = np.divmod(np.arange(CLASSES**2), CLASSES)
    classes = np.arange(CLASSES)
    is_true, is_predicted = true[:, None] == classes, predicted[:, None] == classes
    return np.concatenate([is_true & is_predicted, is_true, is_predicted], axis=1).astype(np.float64)


_PARTS = _parts()


def metrics_of(counts: np.ndarray, primary: str = METRICS[0]) -> dict[str, float]:
    """Return the overall metrics of one confusion matrix.

    Args:
        counts: (4, 4), true by predicted.
        primary: the declared metric, which may be that of a plug-in.

    Returns:
        Name -> value, for the names of :func:`told`.

    Raises:
        UsageError: as :func:`metric_of`.

    Example:
        >>> found = metrics_of(confusion(np.array([0, 0, 3, 3]), np.array([0, 3, 3, 3])))
        >>> {name: round(value, 3) for name, value in found.items()}
        {'accuracy': 0.75, 'macro_f1': 0.733, 'weighted_f1': 0.733}
    """
    metrics = all_metrics(counts)
    return {name: float(metrics[name] if name in METRICS else metric_of(name, counts)) for name in told(primary)}


def told(primary: str) -> tuple[str, ...]:
    """Return the names of the overall metrics that are reported: the three built-in ones, and the declared one."""
    return METRICS if primary in METRICS else (*METRICS, primary)


def calibration_error(gaps: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return the expected calibration error of summed gaps.

    Args:
        gaps: float (..., 15), sums of :func:`confidence_gaps` over queries.
        pairs: (...,), number of pairs in each sum.

    Returns:
        float64 (...,), 0 to 1.
    """
    return np.abs(np.asarray(gaps, np.float64)).sum(axis=-1) / np.maximum(pairs, 1)


def metrics_of_each(pairs: pd.DataFrame, scores: Iterable[MemberScores]) -> dict[str, dict[str, float]]:
    """Return the metrics of each model alone, by its most probable label.

    Args:
        pairs: columns example_id and label (int, index into `LABELS`).
        scores: of each model, out of sample on the pairs.

    Returns:
        Member -> metric -> value.

    Raises:
        LeakError: if a score is missing or not out of sample.
    """
    ids, labels = pairs["example_id"].to_numpy(), pairs["label"].to_numpy()
    return {one.member: metrics_of(confusion(labels, stack([one], ids)[:, 0].argmax(axis=1))) for one in scores}
