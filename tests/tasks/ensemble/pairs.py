"""A game in which models pay in pairs: one without the other adds next to nothing, and single models are far behind."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from esci_tournament.tasks.ensemble.budget import Budget, Cost


class PairsGame:
    """Values, utilities that say nothing, and costs.

    Args:
        seed: Of pairs, worth and costs.
        models: An even number of models, named m00, m01 and so on.
    """

    def __init__(self, seed: int, models: int) -> None:
        random = np.random.default_rng(seed)
        self.members = tuple(f"m{place:02}" for place in range(models))
        self.values: dict[frozenset[str], float] = {}
        self.refits = 0
        self._pairs = random.permutation(models)[: models // 2 * 2].reshape(-1, 2)
        self._together = random.uniform(0.01, 0.08, size=len(self._pairs))
        self._alone = random.uniform(0, 0.01, size=models)
        self.costs = {name: Cost(*random.uniform(1, 3, size=2)) for name in self.members}

    def value(self, subset: Iterable[str]) -> float:
        """Return the value of a set: what its pairs and models are worth, far less when there are few."""
        key = frozenset(subset)
        if key not in self.values:
            self.refits += bool(key)
            row = np.array([name in key for name in self.members])
            worth = row[self._pairs].all(axis=1) @ self._together + row @ self._alone
            self.values[key] = float(0.6 + worth - 0.35 * np.exp(2.0 - 2.0 * len(key)))
        return self.values[key]

    def utility(self, subset: Iterable[str]) -> dict[str, float]:
        """Return equal shares."""
        self.value(subset)
        members = sorted(subset)
        return dict.fromkeys(members, 1 / len(members))

    def bound(self, budget: Budget) -> float:
        """Return a value that no set within the budget exceeds, and that the best one of many models nearly reaches."""
        models, pairs = len(self.members), len(self._pairs)
        used = np.array([[cost.memory_mib, cost.milliseconds] for cost in self.costs.values()]).T
        both = np.zeros((2 * pairs, models + pairs))
        for pair, members in enumerate(self._pairs):
            for side, member in enumerate(members):
                both[2 * pair + side, [models + pair, member]] = 1, -1
        found = milp(
            -np.concatenate([self._alone, self._together]),
            constraints=[
                LinearConstraint(np.hstack([used, np.zeros((2, pairs))]), ub=[budget.memory_mib, budget.latency_ms]),
                LinearConstraint(both, ub=0),
            ],
            integrality=np.ones(models + pairs),
            bounds=Bounds(0, 1),
        )
        return 0.6 - float(found.fun)
