"""Improve a set of models by trying others within the budget, the most promising first, while re-fits are left."""

from __future__ import annotations

import numpy as np

from esci_tournament.tasks.ensemble.proposals import Proposals
from esci_tournament.tasks.ensemble.search import Search
from esci_tournament.tasks.ensemble.surrogate import Beliefs, Surrogate

_TRIES = 8  # re-fits before the surrogate learns anew, if none of them is better


def exchange(search: Search, current: frozenset[str], refits: int) -> frozenset[str]:
    """Fit the sets that promise most, and return the best.

    What is tried depends only on the sets whose metric this selection asked for, so that a selection decides the same
    when it is repeated.

    Args:
        search: the state of the selection.
        current: a set within the budget.
        refits: how many sets may be fitted.

    Returns:
        The best set that was found, `current` if none is better.
    """
    allowed = search.spent() + refits
    proposals = Proposals(search)
    surrogate = Surrogate(len(proposals.free))
    while proposals.free and search.spent() < allowed:
        rows, beliefs = _learn(search, current, proposals, surrogate)
        before = search.spent()
        current = _try(search, current, proposals, rows, beliefs, min(allowed, before + _TRIES))
        if search.spent() == before:  # there is no set left
            break
    return current


def _learn(
    search: Search, current: frozenset[str], proposals: Proposals, surrogate: Surrogate
) -> tuple[np.ndarray, Beliefs]:
    """Learn from all sets that were fitted; return the sets to choose from, bool (m, free), and what is expected."""
    known = [members for members in search.asked if members]
    rows, best = proposals.rows(known), search.value(current)
    surrogate.learn(rows, np.array([search.asked[members] for members in known]), best)
    within = [members for members in known if search.allowed(members) and search.fits(members)]
    good = proposals.rows(sorted(within, key=search.rank, reverse=True))
    pool = proposals.pool(rows, good, lambda some: surrogate.beliefs(some).expected_improvement(best))
    return pool, surrogate.beliefs(pool)


def _try(
    search: Search, current: frozenset[str], proposals: Proposals, rows: np.ndarray, beliefs: Beliefs, allowed: int
) -> frozenset[str]:
    """Fit the most promising sets until one is better, or `allowed` sets are fitted in all; return the better one."""
    left = np.ones(len(rows), dtype=bool)
    while search.spent() < allowed and left.any():
        place = int(np.where(left, beliefs.expected_improvement(search.value(current)), -1).argmax())
        left[place] = False
        tried = proposals.members(rows[place])
        if not search.fits(tried):  # by a rounding error
            continue
        beliefs.add(place, search.value(tried))
        if search.rank(tried) > search.rank(current):
            _note(search, current, tried)
            return tried
    return current


def _note(search: Search, current: frozenset[str], better: frozenset[str]) -> None:
    came, went = sorted(better - current), sorted(current - better)
    gain = search.value(better) - search.value(current)
    parts = [came and f"bring back {', '.join(came)}", went and f"let go {', '.join(went)}"]
    search.note(better, f"{' and '.join(part for part in parts if part)}: the metric gains {gain:.4f}")
    for name in went:
        instead = f"with {', '.join(came)} in its place" if came else "without it"
        search.leave(name, f"exchanged: the ensemble gains {gain:.4f} {instead}")
