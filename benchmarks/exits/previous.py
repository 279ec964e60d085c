"""Early exit as releases before set it: curves of folds, and the bound of Korn and Graubard with a design effect."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import beta
from scipy.stats import t as student

from esci_tournament.tasks.ensemble.early_exit import margins
from esci_tournament.tasks.ensemble.exit_calibration import Curve, last_below
from esci_tournament.tasks.ensemble.fitting import fold_of

_CHANCES = np.geomspace(1e-4, 0.5, 60)
_FOLDS, _FEW, _LEVEL = 5, 30, 0.05


def thresholds(
    scores: Sequence[np.ndarray], groups: np.ndarray, milliseconds: np.ndarray, risk: float
) -> tuple[np.ndarray, float]:
    """Return the margins from which pairs leave, and the bound that was told.

    Args:
        scores: k times float64 (n, 4), decision scores out of fold.
        groups: uint64 (n,), query keys.
        milliseconds: float64 (k,), time of each member.
        risk: share of labels that may differ.

    Returns:
        float64 (k - 1,), nats, all infinite when early exit was off, and the bound of the share, 0 when it was off.
    """
    margin = np.stack([margins(one) for one in scores[:-1]], axis=1)
    label = np.stack([one.argmax(axis=1) for one in scores], axis=1)
    changes = label[:, :-1] != label[:, -1:]
    to_come = 1 - np.cumsum(milliseconds)[:-1] / milliseconds.sum()
    fold, query = fold_of(groups, _FOLDS), np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(query).astype(float)
    everywhere = np.ones(len(groups), dtype=bool)
    curves = [
        [Curve.fit(margin[rows, stage], changes[rows, stage]) for stage in range(margin.shape[1])]
        for rows in (*(fold != number for number in range(_FOLDS)), everywhere)
    ]
    wrong = []
    for chance in _CHANCES:
        needed = np.array(
            [[c.margin_of(chance * share) for c, share in zip(one, to_come, strict=True)] for one in curves]
        )
        leaves = margin >= needed[fold]
        stage = np.where(leaves.any(axis=1), leaves.argmax(axis=1), label.shape[1] - 1)
        wrong.append(np.bincount(query, label[np.arange(len(stage)), stage] != label[:, -1], len(sizes)))
    bounds, effect = np.empty(len(wrong)), 1.0
    for place in reversed(range(len(wrong))):
        if wrong[place].sum() >= _FEW:
            effect = _design_effect(wrong[place], sizes)
        bounds[place] = _upper_bound(wrong[place], sizes, effect)
    place = last_below(bounds, risk)
    if place is None:
        return np.full(margin.shape[1], np.inf), 0.0
    served = [c.margin_of(_CHANCES[place] * share) for c, share in zip(curves[-1], to_come, strict=True)]
    return np.array(served), float(bounds[place])


def _design_effect(wrong: np.ndarray, sizes: np.ndarray) -> float:
    """Return the variance of the share of wrong pairs by that of independent pairs."""
    queries, pairs = len(sizes), sizes.sum()
    share = wrong.sum() / pairs
    if queries < 2 or not 0 < share < 1:
        return 1.0
    variance = queries / (queries - 1) * ((wrong - share * sizes) ** 2).sum() / pairs**2
    return float(variance / (share * (1 - share) / pairs))


def _upper_bound(wrong: np.ndarray, sizes: np.ndarray, at_least: float) -> float:
    """Return the bound of Clopper and Pearson for an effective number of pairs."""
    pairs = sizes.sum()
    effect = max(1.0, at_least, _design_effect(wrong, sizes))
    ratio = student.isf(_LEVEL, pairs - 1) / student.isf(_LEVEL, len(sizes) - 1)
    effective = pairs / effect * min(float(ratio) ** 2, 1.0)
    hits = effective * wrong.sum() / pairs
    return 1.0 if effective - hits <= 0 else float(beta.isf(_LEVEL, hits + 1, effective - hits))
