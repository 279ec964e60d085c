"""Metrics from counts: the judge reads one 4x4 confusion matrix for each query of a test split."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from esci_tournament.registry import extensions
from esci_tournament.registry.errors import UsageError
from esci_tournament.registry.labels import CLASSES

METRICS = ("accuracy", "macro_f1", "weighted_f1")
CONFIDENCE_BINS = 15
_SUREST = 1e-7  # about what float32 tells from 1: a probability below counts as this one
_TINY = 1e-300  # keeps 0 / 0 at 0


def confusion(labels: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the confusion matrix of pairs.

    Args:
        labels: int (n,), true classes, index into `LABELS`.
        predicted: int (n,), predicted classes.
        weights: float (n,), how much each pair counts; None for once each.

    Returns:
        int64 (4, 4), float64 with weights; rows the true label, columns the predicted one.

    Example:
        >>> confusion(np.array([0, 0, 3]), np.array([0, 1, 3])).tolist()
        [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
    """
    cells = np.asarray(labels, np.int64) * CLASSES + np.asarray(predicted, np.int64)
    return np.bincount(cells, weights, minlength=CLASSES**2).reshape(CLASSES, CLASSES)


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
    bins, gaps = gaps_of_pairs(labels, probabilities)
    # Sums of floats depend on their order: sort, so that the order of the rows does not matter
    order = np.lexsort((correct, confidence, bins, inverse))
    cells = (inverse * CONFIDENCE_BINS + bins)[order]
    sums = np.bincount(cells, weights=gaps[order], minlength=len(keys) * CONFIDENCE_BINS)
    return sums.reshape(len(keys), CONFIDENCE_BINS)


def gaps_of_pairs(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the confidence bin of each pair, and its confidence minus its correctness.

    Args:
        labels: int8 (n,), index into `LABELS`.
        probabilities: float32 (n, 4).

    Returns:
        int64 (n,), 0 to 14, and float64 (n,).
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    bins = np.minimum((confidence * CONFIDENCE_BINS).astype(np.int64), CONFIDENCE_BINS - 1)
    return bins, confidence - (probabilities.argmax(axis=1) == labels)


def losses_of_pairs(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the log loss of each pair in nats: minus the logarithm of the probability of what is true.

    Args:
        labels: int8 (n,), index into `LABELS`.
        probabilities: float32 (n, 4); one below 1e-7 counts as 1e-7.

    Returns:
        float64 (n,), 0 to 16.1.
    """
    true = probabilities[np.arange(len(labels)), np.asarray(labels, np.int64)].astype(np.float64)
    return -np.log(np.clip(true, _SUREST, 1.0))


def losses_by_query(labels: np.ndarray, probabilities: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the summed log loss of each query in ascending order, float64 (q,); see :func:`losses_of_pairs`.

    Args:
        labels: int8 (n,), index into `LABELS`.
        probabilities: float32 (n, 4).
        groups: uint64 (n,), query keys.
    """
    keys, inverse = np.unique(np.asarray(groups, np.uint64), return_inverse=True)
    losses = losses_of_pairs(labels, probabilities)
    order = np.lexsort((losses, inverse))  # sums of floats depend on their order, and that of the rows must not matter
    return np.bincount(inverse[order], weights=losses[order], minlength=len(keys))


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


def influences(counts: np.ndarray, whole: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Return how much each query moves each metric, to first order.

    Args:
        counts: (q, 4, 4), one confusion matrix a query.
        whole: (4, 4), the matrix whose metrics are meant; None for the sum of `counts`.

    Returns:
        float64, for each of the metrics (q,), for `f1` (q, 4).
    """
    parts = np.asarray(counts, np.float64).reshape(len(counts), CLASSES**2) @ _PARTS
    hits, truth, predicted = (parts[:, start : start + CLASSES] for start in (0, CLASSES, 2 * CLASSES))
    summed = np.asarray(counts).sum(axis=0) if whole is None else np.asarray(whole)
    metrics = all_metrics(summed)
    all_truth = summed.sum(axis=1).astype(np.float64)
    total = max(all_truth.sum(), 1.0)
    sizes = np.maximum(all_truth + summed.sum(axis=0), 1.0)
    f1 = (2 * hits - metrics["f1"] * (truth + predicted)) / sizes
    present = all_truth > 0
    return {
        "accuracy": (hits.sum(axis=1) - metrics["accuracy"] * truth.sum(axis=1)) / total,
        "macro_f1": f1[:, present].sum(axis=1) / max(int(present.sum()), 1),
        "weighted_f1": (f1 @ all_truth + truth @ metrics["f1"] - metrics["weighted_f1"] * truth.sum(axis=1)) / total,
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


def slopes(names: Iterable[str], whole: np.ndarray) -> dict[str, np.ndarray]:
    """Return how much one pair more in each cell of a confusion matrix moves each metric, to first order.

    Args:
        names: metrics of plug-ins, beside the built-in ones.
        whole: (4, 4), true by predicted.

    Returns:
        float64, for each of the metrics (16,), for `f1` (16, 4); the cells in the order of `whole.reshape(16)`.

    Raises:
        UsageError: as :func:`metric_of`.
    """
    cells = np.eye(CLASSES**2, dtype=np.int64).reshape(-1, CLASSES, CLASSES)
    return influences(cells, whole) | {name: _slope(name, whole) for name in names}


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
    slope = _slope(name, np.asarray(counts, np.float64).sum(axis=0))
    return np.asarray(counts, np.float64).reshape(len(counts), -1) @ slope


def _slope(name: str, whole: np.ndarray) -> np.ndarray:
    """Return the derivative of a plug-in's metric by each cell of a matrix, float64 (16,)."""
    step = 1e-4 * max(whole.sum(), 1.0)
    moved = step * np.eye(CLASSES**2).reshape(-1, CLASSES, CLASSES)
    below = np.minimum(moved, whole)  # a count does not fall below 0
    width = step + below.sum(axis=(1, 2))
    return (metric_of(name, whole + moved) - metric_of(name, whole - below)) / width


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
