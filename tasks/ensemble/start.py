"""What boosting starts from: nothing, or a log-linear pool of the members; whichever has less log loss out of fold."""

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
    """What boosting starts from, and what was seen.

    Attributes:
        chosen: the better one; of equals, nothing.
        nothing, pool: out-of-fold log loss with each, nats a pair.
    """

    chosen: Literal["nothing", "pool"]
    nothing: float
    pool: float


def choose_start(
    columns: np.ndarray, labels: np.ndarray, groups: np.ndarray, parameters: AggregatorParameters
) -> Start:
    """Return what boosting had better start from.

    Trees need pairs to find out what a weighted mean of the members knows from the beginning. Where there are few, they
    stop early and answer with little more than how frequent a class is; where there are many, the pool only stands in
    their way, because its weights are the same everywhere.

    Args:
        columns: float32 (n, k, 4), out-of-sample scores. labels: int8 (n,). groups: uint64 (n,), query keys.
        parameters: of the aggregator; its `start` is not looked at.
    """
    rows = whole_queries(groups, MOST_ROWS)
    parts = columns[rows], labels[rows], groups[rows]
    nothing = cross_validate(*parts, replace(parameters, start="nothing")).log_loss
    pool = cross_validate(*parts, replace(parameters, start="pool")).log_loss
    return Start("pool" if pool < nothing else "nothing", nothing, pool)
