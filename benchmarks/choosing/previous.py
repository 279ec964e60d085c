"""The rule `shap` as it was before candidates were sampled: with more than 12 models it tried neighbours of five sets.

One weight for all models, values as they are. Kept as a peer; the eviction is the product's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.stats import norm

from esci_tournament.tasks.ensemble.search import Search
from esci_tournament.tasks.ensemble.selection_rules import MOST_EXHAUSTIVE_MEMBERS, evict, more_refits

_CENTRES = 5
_LENGTH = 8.0
_NOISE = 0.005


def neighbours(search: Search) -> frozenset[str]:
    """Evict, then try sets near the five best while re-fits are left, and return the best."""
    current = evict(search, search.eligible)
    allowed = search.spent() + more_refits(search)
    while search.spent() < allowed:
        candidates = _candidates(search, current)
        if not candidates:
            break
        known = {members: value for members, value in search.asked.items() if members}
        gains = _expected_improvement(known, candidates, search.game.members, search.value(current))
        tried = candidates[int(gains.argmax())]
        if search.rank(tried) > search.rank(current):
            current = tried
    return current


def _candidates(search: Search, current: frozenset[str]) -> list[frozenset[str]]:
    if len(search.eligible - search.keep) <= MOST_EXHAUSTIVE_MEMBERS:
        around = search.all_sets()
    else:
        known = [s for s in search.asked if search.allowed(s) and search.fits(s)]
        centres = sorted(known, key=search.rank, reverse=True)[:_CENTRES]
        around = sorted({near for centre in [current, *centres] for near in _near(search, centre)}, key=search.order)
    return [s for s in around if s and s not in search.asked and search.fits(s)]


def _near(search: Search, centre: frozenset[str]) -> list[frozenset[str]]:
    inside, outside = sorted(centre - search.keep), sorted(search.eligible - centre)
    changed = [centre | {name} for name in outside] + [centre - {name} for name in inside]
    return changed + [(centre - {gone}) | {name} for gone in inside for name in outside]


def _expected_improvement(
    known: Mapping[frozenset[str], float], candidates: Sequence[frozenset[str]], members: Sequence[str], best: float
) -> np.ndarray:
    seen, values = _indicators(list(known), members), np.fromiter(known.values(), np.float64, count=len(known))
    asked = _indicators(candidates, members)
    spread = max(float(values.std()), 1e-9)
    factor = cho_factor(_covariance(seen, seen) + _NOISE * np.eye(len(seen)))
    shared = _covariance(asked, seen)
    mean = values.mean() + shared @ cho_solve(factor, values - values.mean())
    explained = np.einsum("ij,ji->i", shared, cho_solve(factor, shared.T))
    deviation = spread * np.sqrt(np.maximum(1 - explained, 1e-9))
    surplus = (mean - best) / deviation
    return np.asarray(deviation * (surplus * norm.cdf(surplus) + norm.pdf(surplus)))


def _indicators(sets: Sequence[frozenset[str]], members: Sequence[str]) -> np.ndarray:
    return np.array([[member in each for member in members] for each in sets], dtype=np.float64)


def _covariance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    distance = first.sum(axis=1)[:, None] + second.sum(axis=1)[None, :] - 2 * first @ second.T
    return np.asarray(np.exp(-distance / _LENGTH))
