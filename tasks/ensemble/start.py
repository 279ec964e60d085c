"""Choose what boosting starts from: nothing, or a log-linear pool of the members, whichever has less log loss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from esci_tournament.tasks.ensemble.aggregate import AggregatorParameters
from esci_tournament.tasks.ensemble.fitting import cross_validate
from esci_tournament.tasks.ensemble.value import whole_queries

MOST_ROWS = 60_000  # as many as selection looks at


@dataclass(frozen=True)
class Start:
    """What boosting starts from, and the losses that decided.

    Attributes:
        chosen: the better one; of equals, nothing.
        nothing: out-of-fold log loss from nothing, nats a pair.
        pool: out-of-fold log loss from the pool, nats a pair.
    """

    chosen: Literal["nothing", "pool"]
    nothing: float
    pool: float


def choose_start(
    columns: np.ndarray, labels: np.ndarray, groups: np.ndarray, parameters: AggregatorParameters
) -> Start:
    """Choose what boosting starts from, by the log loss out of fold.

    Trees need many pairs to learn what a weighted mean of the members gives at once. With few pairs they stop early and
    answer with little more than how frequent a class is. With many pairs the pool is a handicap, because its weights
    are the same for all pairs.

    Args:
        columns: float32 (n, k, 4), out-of-sample scores.
        labels: int8 (n,), index into `LABELS`.
        groups: uint64 (n,), query keys.
        parameters: of the aggregator; its `start` is not read.

    Returns:
        The choice, made on at most 60,000 pairs.

    Raises:
        UsageError: if shapes do not fit or there are too few queries for the folds.
    """
    rows = whole_queries(groups, MOST_ROWS)
    parts = columns[rows], labels[rows], groups[rows]
    nothing = cross_validate(*parts, replace(parameters, start="nothing")).log_loss
    pool = cross_validate(*parts, replace(parameters, start="pool")).log_loss
    return Start("pool" if pool < nothing else "nothing", nothing, pool)
