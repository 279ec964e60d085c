"""Find models whose columns are not the classes that they are taken for.

Columns are compared with labels by AUC, the chance that a column is larger on a pair of a class than on a pair of
another class (a Mann-Whitney statistic; half of the ties). It depends neither on how frequent a class is nor on how
sure a model is, so a model that is weak, overconfident or made for another class mix is not taken for one whose columns
stand in another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from scipy.stats import rankdata

from esci_tournament.registry.labels import CLASSES, LABELS
from esci_tournament.tasks.data.dataset import salted_uniform

LEAST_GAIN = 0.05  # of the mean AUC, in each half of the queries
LEAST_FOUND = 0.6  # mean AUC in the better order: a model that knows next to nothing fits none
LEAST_PAIRS = 20  # of each class, in each half
MOST_PAIRS = 60_000  # that are looked at


@dataclass(frozen=True)
class MixedUp:
    """A model that fits the labels much better when its columns are read in another order.

    Attributes:
        member: Its name.
        order: The classes of its columns in the better order, such as "CEIS".
        found: Mean AUC of the four classes in that order, in [0, 1].
        given: The same in the order in which the columns are read.
        pairs: Pairs that were compared.
    """

    member: str
    order: str
    found: float
    given: float
    pairs: int

    @property
    def sentence(self) -> str:
        """The finding in words."""
        return (
            f"{self.member}: its columns seem to be in another order than E, S, C, I. Read as "
            f"{', '.join(self.order)} they fit the labels much better (mean AUC {self.found:.2f} instead of "
            f"{self.given:.2f} on {self.pairs:,} pairs); let its owner check what each column is"
        )


def mixed_up(columns: np.ndarray, labels: np.ndarray, groups: np.ndarray, members: Sequence[str]) -> list[MixedUp]:
    """Return the models whose columns fit the labels much better in another order.

    An order counts when it raises the mean AUC by at least 0.05, to at least 0.6, in each of two halves of the queries.
    Where a half has fewer than 20 pairs of a class, nothing is found.

    Args:
        columns: float32 (n, k, 4), out-of-sample scores.
        labels: int (n,), index into `LABELS`.
        groups: uint64 (n,), the query of each pair.
        members: k names.

    Returns:
        One entry for each such model, in the order of `members`.
    """
    queries = salted_uniform(groups, "mixed up")
    kept = np.argsort(queries, kind="stable")[:MOST_PAIRS]
    first = queries[kept] < np.median(queries[kept])
    parts = [kept[first], kept[~first]]
    if any((np.bincount(labels[part], minlength=CLASSES)[:CLASSES] < LEAST_PAIRS).any() for part in parts):
        return []
    found = []
    for place, name in enumerate(members):
        areas = [aucs(columns[part, place], labels[part]) for part in parts]
        # order[j] is the class that column j is read as
        best = max(permutations(range(CLASSES)), key=lambda order: sum(_mean(area, order) for area in areas))
        gains = [_mean(area, best) - _mean(area, range(CLASSES)) for area in areas]
        if min(gains) >= LEAST_GAIN and min(_mean(area, best) for area in areas) >= LEAST_FOUND:
            all_pairs = aucs(columns[kept, place], labels[kept])
            order = "".join(LABELS[number] for number in best)
            found.append(MixedUp(name, order, _mean(all_pairs, best), _mean(all_pairs, range(CLASSES)), len(kept)))
    return found


def aucs(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return how well each column tells each class from the others.

    Args:
        probabilities: float (n, 4).
        labels: int (n,), index into `LABELS`, each class at least once.

    Returns:
        float64 (4, 4): row the column, column the class; in [0, 1].

    Example:
        >>> aucs(np.eye(4)[[0, 1, 2, 3]], np.array([0, 1, 3, 2])).round(2).tolist()[2]
        [0.33, 0.33, 0.33, 1.0]
    """
    sizes = np.bincount(labels, minlength=CLASSES)[:CLASSES].astype(np.float64)
    areas = np.empty((CLASSES, CLASSES))
    for column in range(CLASSES):
        ranks = np.bincount(labels, rankdata(probabilities[:, column]), CLASSES)[:CLASSES]
        areas[column] = (ranks - sizes * (sizes + 1) / 2) / (sizes * (len(labels) - sizes))
    return areas


def _mean(areas: np.ndarray, order: Sequence[int]) -> float:
    return float(areas[range(CLASSES), list(order)].mean())
