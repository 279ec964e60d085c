"""A cheap game of the same kind as the product's: the out-of-fold macro F1 of a linear stacker, far under 1 ms a set.

The product's re-fit takes tenths of a second, so that every set of 16 models would take hours. Here each class has a
ridge regression of "is this the label" on the centred log probabilities that the members give to the class. Sums of
squares and products are made once, so that a set needs one small system of equations a class and fold.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from benchmarks.worlds import World
from esci_tournament.tasks.ensemble.counts import confusion, macro_f1

_FOLDS = 3
_PENALTY = 2.0  # in rows of weight 1, on coefficients of columns with variance 1
_BATCH = 512
_CLASSES = 4


class LinearGame:
    """The value of each set of members under a linear stacker.

    Args:
        world: The pairs and what each member says of them.

    Attributes:
        members: Names of all members.
        values: The macro F1 of each set that is known.
        refits: Number of sets that were fitted.
    """

    def __init__(self, world: World) -> None:
        self.members = world.members
        self.values: dict[frozenset[str], float] = {}
        self.refits = 0
        fold = (world.groups % np.uint64(_FOLDS)).astype(np.int64)
        order = np.argsort(fold, kind="stable")
        self._edges = np.searchsorted(fold[order], np.arange(_FOLDS + 1))
        self._truth = np.eye(_CLASSES)[world.labels[order]]  # (n, 4)
        # Macro F1 counts rare classes as much as frequent ones, so that their rows weigh more
        weight = (self._truth @ (1 / np.sqrt(np.maximum(self._truth.mean(axis=0), 1e-3)))) / 2
        logs = _centred_logs(world.columns[order])
        self._middle, self._spread = logs.mean(axis=0), np.maximum(logs.std(axis=0), 1e-9)
        logs = (logs - self._middle) / self._spread
        ones = np.ones((len(order), 1, _CLASSES))
        self._inputs = np.ascontiguousarray(np.concatenate([logs, ones], axis=1).transpose(2, 0, 1))  # (4, n, k + 1)
        weighted = self._inputs * weight[None, :, None]
        parts = [slice(self._edges[f], self._edges[f + 1]) for f in range(_FOLDS)]
        grams = np.stack([weighted[:, rows].transpose(0, 2, 1) @ self._inputs[:, rows] for rows in parts])
        moments = np.stack([np.einsum("cnk,nc->ck", weighted[:, rows], self._truth[rows]) for rows in parts])
        grams, moments = grams.sum(axis=0) - grams, moments.sum(axis=0) - moments  # what is fitted without the fold
        self._grams, self._moments = grams, moments  # (folds, 4, k + 1, k + 1), (folds, 4, k + 1)

    def value(self, subset: Iterable[str]) -> float:
        """Return the out-of-fold macro F1 of a set of members."""
        key = frozenset(subset)
        if key not in self.values:
            self.refits += bool(key)
            self.values[key] = float(self.values_of(np.array([[name in key for name in self.members]]))[0])
        return self.values[key]

    def values_of(self, sets: np.ndarray) -> np.ndarray:
        """Return the values of many sets.

        Args:
            sets: bool (m, k).

        Returns:
            float64 (m,), macro F1.
        """
        values = np.empty(len(sets))
        sizes = sets.sum(axis=1)
        for size in np.unique(sizes):
            same = np.flatnonzero(sizes == size)
            for start in range(0, len(same), _BATCH):
                some = same[start : start + _BATCH]
                values[some] = self._macro_f1(self._weights(sets[some], int(size)))
        return values

    def utility(self, subset: Iterable[str]) -> dict[str, float]:
        """Return each member's share of the SHAP credit, which for a linear model is |weight (input - mean)|."""
        key = frozenset(subset)
        self.value(key)
        weights = self._weights(np.array([[name in key for name in self.members]]), len(key))[0].mean(axis=0)
        spread = np.abs(self._inputs - self._inputs.mean(axis=1, keepdims=True)).mean(axis=1)  # (4, k + 1)
        credit = (np.abs(weights) * spread).sum(axis=0)
        total = max(sum(credit[self.members.index(name)] for name in key), 1e-12)
        return {name: float(credit[self.members.index(name)] / total) for name in self.members if name in key}

    def elsewhere(self, subset: Iterable[str], world: World) -> float:
        """Return the macro F1 of the stacker of a set on other pairs of the same members.

        Args:
            subset: Names of members.
            world: The other pairs.
        """
        key = frozenset(subset)
        weights = self._weights(np.array([[name in key for name in self.members]]), len(key))[0].mean(axis=0)
        logs = (_centred_logs(world.columns) - self._middle) / self._spread
        scores = np.einsum("nkc,ck->nc", logs, weights[:, :-1]) + weights[:, -1]
        return float(macro_f1(confusion(world.labels, scores.argmax(axis=1))))

    def _weights(self, sets: np.ndarray, size: int) -> np.ndarray:
        """Return float64 (m, folds, 4, k + 1), 0 for members outside a set of `size`."""
        count, width = len(sets), self._grams.shape[-1]
        places = np.nonzero(np.column_stack([sets, np.ones(count, bool)]))[1].reshape(count, size + 1)
        grams = self._grams[:, :, places[:, :, None], places[:, None, :]]  # (folds, 4, m, s + 1, s + 1)
        grams = grams + _PENALTY * np.diag([1.0] * size + [1e-6])
        found = np.linalg.solve(grams, self._moments[:, :, places][..., None])[..., 0]
        weights = np.zeros((count, _FOLDS, _CLASSES, width))
        np.put_along_axis(weights, places[:, None, None, :], found.transpose(2, 0, 1, 3), axis=3)
        return weights

    def _macro_f1(self, weights: np.ndarray) -> np.ndarray:
        count = len(weights)
        counts = np.zeros((_CLASSES, _CLASSES, count))  # true, predicted
        for fold in range(_FOLDS):
            rows = slice(self._edges[fold], self._edges[fold + 1])
            scores = [self._inputs[c, rows] @ weights[:, fold, c].T for c in range(_CLASSES)]  # each (rows, m)
            top = np.maximum(np.maximum(scores[0], scores[1]), np.maximum(scores[2], scores[3]))
            free = np.ones(top.shape, bool)
            for c in range(_CLASSES):
                chosen = (scores[c] == top) & free  # the first of equals
                free &= ~chosen
                counts[:, c] += self._truth[rows].T @ chosen
        hits = counts[np.arange(_CLASSES), np.arange(_CLASSES)]
        both = counts.sum(axis=0) + counts.sum(axis=1)
        return np.asarray((2 * hits / np.maximum(both, 1)).mean(axis=0))


def _centred_logs(columns: np.ndarray) -> np.ndarray:
    logs = np.log(np.maximum(columns, 1e-6)).astype(np.float64)
    return np.asarray(logs - logs.mean(axis=2, keepdims=True))


def every_set(members: int) -> np.ndarray:
    """Return every set but the empty one, bool (2**members - 1, members)."""
    return (np.arange(1, 2**members)[:, None] >> np.arange(members) & 1).astype(bool)
