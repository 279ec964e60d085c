"""Sets of models within the budget that selection may fit next: all, or with many models a sample that improves.

A set is a row of indicators of the models that are free to enter. With more than `MOST_LISTED_MODELS` of those the
sample starts from neighbours of the best sets, mixtures of these, and sets drawn at random that fill the budget; then
neighbours of the most promising ones join it, a few times over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from esci_tournament.tasks.ensemble.search import Search

MOST_LISTED_MODELS = 12
_PARENTS = 10
_DRAWN = 150  # of each kind: at random, mixtures
_GENERATIONS = 3
_POOL = 1500  # of sets that the surrogate follows between two learnings
_SLACK = 1 + 1e-9  # sums in another order differ in the last bits; `Search.fits` decides

Promise = Callable[[np.ndarray], np.ndarray]


class Proposals:
    """The models that are free to enter, and sets of them within the budget.

    Args:
        search: The state of the selection.

    Attributes:
        free: Models that may enter and need not, in the game's order; the columns of all arrays.
    """

    def __init__(self, search: Search) -> None:
        self._search = search
        self.free = search.order(search.eligible - search.keep)
        budget, costs, kept = search.budget, search.costs, search.budget.used(search.keep, search.costs)
        self._memory = np.array([costs[name].memory_mib for name in self.free])
        self._time = np.array([costs[name].milliseconds for name in self.free])
        self._kept = kept.memory_mib, kept.milliseconds
        limits = budget.memory_mib, budget.latency_ms
        self._limits = [np.inf if limit is None else limit * _SLACK for limit in limits]
        self._adds_up = budget.execution == "series"
        self._random = np.random.default_rng(0)
        self._listed = self._every_set() if len(self.free) <= MOST_LISTED_MODELS else None

    def rows(self, sets: Sequence[frozenset[str]]) -> np.ndarray:
        """Return the indicators of sets, bool (n, free)."""
        rows = [[name in members for name in self.free] for members in sets]
        return np.array(rows, dtype=bool).reshape(len(sets), len(self.free))

    def members(self, row: np.ndarray) -> frozenset[str]:
        """Return the set of a row, with the models that must be kept."""
        return self._search.keep | {name for name, inside in zip(self.free, row, strict=True) if inside}

    def fit(self, rows: np.ndarray) -> np.ndarray:
        """Return whether each row is not empty and within the budget, bool (m,)."""
        memory, time = self._sums(rows)
        filled = rows.any(axis=1) | bool(self._search.keep)
        return np.asarray(filled & (memory <= self._limits[0]) & (time <= self._limits[1]))

    def pool(self, known: np.ndarray, best: np.ndarray, promise: Promise) -> np.ndarray:
        """Return sets within the budget that are not fitted yet.

        Args:
            known: bool (n, free), the sets that are fitted.
            best: bool (b, free), those of them within the budget, the best first.
            promise: expected improvement of each row of bool (m, free).

        Returns:
            bool (m, free): all of them, or with many models at most 1,500, the most promising.
        """
        if self._listed is not None:
            return _without(self._listed, known)
        parents = best[:_PARENTS]
        drawn = [self._filled(np.zeros((_DRAWN, len(self.free)), dtype=bool)), self._mixtures(best[: 2 * _PARENTS])]
        rows = self._possible([*drawn, *self._around(parents)], known)
        promises = promise(rows)
        for _ in range(_GENERATIONS):
            parents = rows[np.argsort(-promises, kind="stable")[:_PARENTS]]
            more = self._possible(self._around(parents), np.vstack([known, rows]))
            if not len(more):
                break
            rows, promises = np.vstack([rows, more]), np.concatenate([promises, promise(more)])
        return rows[np.argsort(-promises, kind="stable")[:_POOL]]

    def _sums(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return memory and time of each row, float64 (m,) each, with the models that must be kept."""
        inside = rows.astype(np.float64)
        memory = self._kept[0] + inside @ self._memory
        if self._adds_up:
            return memory, self._kept[1] + inside @ self._time
        return memory, np.maximum((inside * self._time).max(axis=1, initial=0), self._kept[1])

    def _every_set(self) -> np.ndarray:
        numbers = np.arange(2 ** len(self.free))
        # Bit 0 is the last model, so that equals come in the order of the numbers whatever the models are called
        rows = (numbers[:, None] >> np.arange(len(self.free))[::-1] & 1).astype(bool)
        return rows[self.fit(rows)]

    def _possible(self, parts: Sequence[np.ndarray], known: np.ndarray) -> np.ndarray:
        rows = np.vstack([part for part in parts if len(part)] or [np.zeros((0, len(self.free)), dtype=bool)])
        return _without(rows[self.fit(rows)], known)

    def _around(self, parents: np.ndarray) -> list[np.ndarray]:
        """Return all sets that differ from a parent in one model or by an exchange, and refilled ones."""
        one = np.eye(len(self.free), dtype=bool)
        changed, to_fill = [], []
        for parent in parents:
            inside, outside = np.flatnonzero(parent), np.flatnonzero(~parent)
            flipped = parent ^ one
            swapped = (parent ^ one[inside][:, None] ^ one[outside][None]).reshape(-1, len(self.free))
            changed += [flipped, swapped]
            to_fill += [flipped[inside], self._thinned(parent)]  # several may fill the room that one leaves
        return [*changed, self._filled(np.vstack(to_fill))] if to_fill else []

    def _thinned(self, parent: np.ndarray) -> np.ndarray:
        """Return copies of a set without a random third of its models, as many as it has models."""
        return parent & (self._random.random((int(parent.sum()), len(parent))) > 1 / 3)

    def _mixtures(self, best: np.ndarray) -> np.ndarray:
        """Return sets that take each model from one of two good sets, filled up; none if there are no two."""
        if len(best) < 2:
            return best[:0]
        first, second = best[self._random.integers(len(best), size=(2, _DRAWN))]
        mixed = np.where(self._random.random(first.shape) < 0.5, first, second)
        return self._filled(mixed[self.fit(mixed)])

    def _filled(self, rows: np.ndarray) -> np.ndarray:
        """Return sets within the budget with models added in random order, as long as they stay within it."""
        rows = rows.copy()
        every = np.arange(len(rows))
        memory, time = self._sums(rows)
        for column in np.argsort(self._random.random(rows.shape), axis=1).T:
            more_memory = memory + self._memory[column]
            more_time = time + self._time[column] if self._adds_up else np.maximum(time, self._time[column])
            enters = ~rows[every, column] & (more_memory <= self._limits[0]) & (more_time <= self._limits[1])
            rows[every[enters], column[enters]] = True
            memory, time = np.where(enters, more_memory, memory), np.where(enters, more_time, time)
        return rows


def _without(rows: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the rows that are not known, each once, in their order."""
    seen = {row.tobytes() for row in np.packbits(known, axis=1)}
    fresh = []
    for place, row in enumerate(np.packbits(rows, axis=1)):
        key = row.tobytes()
        if key not in seen:
            seen.add(key)
            fresh.append(place)
    return rows[fresh]
