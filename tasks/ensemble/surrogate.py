"""Choose which set to fit next: a Gaussian process over sets of models, learnt from the sets already fitted.

Two sets that share most members reach about the same metric, so that the covariance of their values falls with the
number of models that stand in one and not in the other: exp(-distance / 8). The process predicts mean and deviation of
each set not yet tried; the set with the largest expected improvement (Mockus 1975; Jones, Schonlau and Welch 1998)
is tried next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.stats import norm

_LENGTH = 8.0  # models that may differ before two sets say little about each other
_NOISE = 0.005  # share of the variance that no set explains about another


def expected_improvement(
    known: Mapping[frozenset[str], float],
    candidates: Sequence[frozenset[str]],
    members: Sequence[str],
    best: float,
) -> np.ndarray:
    """Return by how much each candidate is expected to exceed `best`.

    Args:
        known: the metric of each set already fitted; at least one.
        candidates: m sets not fitted yet.
        members: names of all models.
        best: metric of the set to improve on.

    Returns:
        float64 (m,), in the metric's unit, 0 or more.
    """
    seen, values = _indicators(list(known), members), np.fromiter(known.values(), np.float64, count=len(known))
    asked = _indicators(candidates, members)
    spread = max(float(values.std()), 1e-9)
    factor = cho_factor(_covariance(seen, seen) + _NOISE * np.eye(len(seen)))
    shared = _covariance(asked, seen)
    mean = values.mean() + shared @ cho_solve(factor, values - values.mean())
    explained = np.einsum("ij,ji->i", shared, cho_solve(factor, shared.T))
    deviation = spread * np.sqrt(np.maximum(1 - explained, 1e-9))
    surplus = (mean - best) / deviation
    return deviation * (surplus * norm.cdf(surplus) + norm.pdf(surplus))


def _indicators(sets: Sequence[frozenset[str]], members: Sequence[str]) -> np.ndarray:
    return np.array([[member in each for member in members] for each in sets], dtype=np.float64)


def _covariance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    distance = first.sum(axis=1)[:, None] + second.sum(axis=1)[None, :] - 2 * first @ second.T
    return np.exp(-distance / _LENGTH)
