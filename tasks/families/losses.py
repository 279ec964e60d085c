"""Class weights for the training loss."""

from __future__ import annotations

import numpy as np

from esci_tournament.registry.errors import UsageError
from esci_tournament.registry.labels import LABELS


def class_weights(labels: np.ndarray, mode: str) -> np.ndarray | None:
    """Return the weight of each class in the cross-entropy.

    "balanced" is scikit-learn's n / (classes * count); "sqrt_balanced" its square root, which lifts rare classes with
    less noise. Weights are scaled so that their mean over the labels is 1: the learning rate keeps its meaning. A
    class that no label has weighs as much as the rarest that is there.

    Args:
        labels: int (n,), index into `LABELS`.
        mode: "none", "balanced" or "sqrt_balanced".

    Returns:
        float32 (4,) in the order of `LABELS`, or None for "none".

    Raises:
        UsageError: if the mode is none of the three or there are no labels.

    Example:
        >>> class_weights(np.array([0, 0, 0, 1, 2, 3]), "balanced").tolist()
        [0.5, 1.5, 1.5, 1.5]
    """
    if mode == "none":
        return None
    if mode not in ("balanced", "sqrt_balanced"):
        raise UsageError(f"class_weights {mode!r} is none of none, balanced, sqrt_balanced")
    counts = np.bincount(np.asarray(labels, dtype=np.int64), minlength=len(LABELS)).astype(np.float64)
    if not counts.any():
        raise UsageError("class weights need at least one label; there are none")
    counts_present = np.where(counts > 0, counts, counts[counts > 0].min())
    weights = counts.sum() / (len(LABELS) * counts_present)
    if mode == "sqrt_balanced":
        weights = np.sqrt(weights)
    weights /= (weights * counts).sum() / counts.sum()
    return weights.astype(np.float32)
