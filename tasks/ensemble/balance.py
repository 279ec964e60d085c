"""Choose how much rare classes weigh in the aggregator's fit, by the declared metric out of fold.

Boosting on the plain log loss answers with the most probable class. That is right for accuracy; on skewed labels it
rarely answers with rare classes, and macro F1, which counts every class alike, can fall below that of the best member.
Too much weight on rare classes costs accuracy instead: no power is chosen that costs another overall metric more than a
verdict's guardrails tolerate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from esci_tournament.registry.labels import CLASSES
from esci_tournament.tasks.ensemble.aggregate import AggregatorParameters
from esci_tournament.tasks.ensemble.bootstrap import resampled_sums
from esci_tournament.tasks.ensemble.counts import METRICS, all_metrics, confusion_by_query, metric_of
from esci_tournament.tasks.ensemble.fitting import cross_validate
from esci_tournament.tasks.ensemble.value import whole_queries

POWERS = (0.0, 0.25, 0.5, 0.75)  # beyond, rare classes are answered so often that every metric falls
RESAMPLES = 500
MOST_ROWS = 60_000  # as many as selection looks at


@dataclass(frozen=True)
class Balance:
    """The power of the inverse class frequency that weighs a pair, and the metric at each power.

    Attributes:
        power: the chosen one.
        metric: name of the metric that decided.
        values: out-of-fold metric at each power that was tried, in order of `POWERS`; empty when none was tried.
    """

    power: float
    metric: str
    values: tuple[float, ...] = ()


def choose_balance(
    columns: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    parameters: AggregatorParameters,
    metric: str,
    margin: float = 1.0,
) -> Balance:
    """Return the least power whose out-of-fold metric is within one standard error of the best one's.

    The one-standard-error rule of Breiman et al. (Classification and Regression Trees, 1984), on the paired difference,
    by a bootstrap over queries: it keeps the probabilities as close to unweighted ones as the data allow.

    Args:
        columns: float32 (n, k, 4), out-of-sample scores.
        labels: int8 (n,), index into `LABELS`.
        groups: uint64 (n,), query keys.
        parameters: of the aggregator; its `balance` is not read.
        metric: the declared primary metric. Accuracy needs the most probable class, so no power is tried for it.
        margin: what the other overall metrics may lose, each against its best at any power.

    Returns:
        The choice, made on at most 60,000 pairs.

    Raises:
        UsageError: if shapes do not fit or there are too few queries for the folds.
    """
    if metric == "accuracy":
        return Balance(0.0, metric)
    rows = whole_queries(groups, MOST_ROWS)
    columns, labels, groups = columns[rows], labels[rows], groups[rows]
    counts = []
    for power in POWERS:
        found = cross_validate(columns, labels, groups, replace(parameters, balance=power))
        counts.append(confusion_by_query(labels, found.probabilities.argmax(axis=1), groups)[1])
    overall = [all_metrics(one.sum(axis=0)) for one in counts]
    values = np.array([float(metric_of(metric, one.sum(axis=0))) for one in counts])
    costs = np.max([np.max(of) - of for of in _others(overall, metric)], axis=0)
    allowed = costs <= max(margin, costs.min())
    table = np.concatenate([one.reshape(len(one), -1) for one in counts], axis=1).astype(np.float32)
    sums = resampled_sums(table, np.zeros(len(table), np.int64), RESAMPLES, parameters.seed, parameters.threads)[:, 0]
    resampled = metric_of(metric, sums.reshape(RESAMPLES, len(POWERS), CLASSES, CLASSES))
    best = int(np.where(allowed, values, -np.inf).argmax())
    errors = (resampled[:, [best]] - resampled).std(axis=0, ddof=1)
    chosen = int(np.flatnonzero(allowed & (values[best] - values <= errors))[0])
    return Balance(POWERS[chosen], metric, tuple(float(value) for value in values))


def _others(overall: list[dict[str, Any]], metric: str) -> list[np.ndarray]:
    """Return the values of each overall metric but one at each power."""
    return [np.array([float(one[name]) for one in overall]) for name in METRICS if name != metric]
