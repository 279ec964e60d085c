"""The decision rule: which class an ensemble answers with, given its raw scores.

The most probable class is right for accuracy. On skewed labels it is rarely a rare class, and macro F1, which counts
every class alike, falls below that of a member that answers with rare classes more often. Weighing rare classes in the
fit mends that at the price of probabilities that are not honest any more. So the fit is left alone, and the class is
the one with the largest log-probability plus an offset for its class (the weighted argmax of Lipton, Elkan and
Narayanaswamy, "Optimal Thresholding of Classifiers to Maximize F1 Measure", 2014, for more than two classes).

The offsets are tuned out of fold for all metrics at once, against the best member's: see :func:`merit`. Metrics are
step functions of the offsets, and a single tuning fits their noise. So they are the mean over tunings on random subsets
of the queries ("subagging": Buehlmann and Yu, "Analyzing Bagging", 2002), and on each subset the mean of two: of three
free offsets, and of the best multiple of the logarithms of the class frequencies, which is one number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from esci_tournament.registry.labels import CLASSES
from esci_tournament.tasks.ensemble.counts import METRICS, all_metrics, confusion, metric_of, told

_SWEEPS = 4
_FARTHEST = 3.0  # of an offset from 0, nats: a class is made at most 20 times as likely
_STEP = 0.02  # of the offsets that are looked at
_POWERS = np.arange(-0.2, 1.21, 0.05)  # of the class frequencies
_SUBSETS = 24
_SUBSET_SHARE = 0.632  # of the queries: as many as a bootstrap sample holds
_MOST_ROWS = 20_000  # pairs that three numbers are tuned on
_OTHERS = 0.5  # what the mean of the other metrics counts beside the primary one
_BEHIND = 4.0  # what a metric behind its target counts in addition
_AHEAD = 0.003  # how far ahead of its target a metric has to be to count as not behind

UNSEEN = 0.632  # what decisions on queries left out count in the estimate of a rule

NO_OFFSETS = np.zeros(CLASSES)

Targets = Mapping[str, float]  # metric -> what it should reach


@dataclass(frozen=True)
class Rule:
    """A tuned decision rule.

    Attributes:
        offsets: float64 (4,), that of the first class is 0.
        counts: float64 (4, 4), true by predicted: what its decisions are estimated to be on pairs of queries that it
            was not tuned on, see :func:`estimated`.
        decisions: int8 (2, n), what :func:`estimated` takes: by rules that were not tuned on the pair's query, and by
            this one.
    """

    offsets: np.ndarray
    counts: np.ndarray
    decisions: np.ndarray


def estimated(labels: np.ndarray, decisions: np.ndarray) -> np.ndarray:
    """Return what the decisions of a tuned rule are estimated to be on pairs of queries that it was not tuned on.

    The .632 estimate of Efron and Tibshirani ("Improvements on Cross-Validation: The .632+ Bootstrap Method", 1997):
    decisions on queries left out are worse than those of the rule, which has seen more of them; its own on the queries
    that it was tuned on are better.

    Args:
        labels: int (n,), index into `LABELS`.
        decisions: int8 (2, n), by rules that were not tuned on the pair's query, and by the rule itself.

    Returns:
        float64 (4, 4), true by predicted.
    """
    unseen, seen = decisions
    return UNSEEN * confusion(labels, unseen) + (1 - UNSEEN) * confusion(labels, seen)


def decide(scores: np.ndarray, offsets: np.ndarray = NO_OFFSETS) -> np.ndarray:
    """Return the class with the largest score plus offset.

    Args:
        scores: float (n, 4), raw scores or log-probabilities.
        offsets: float (4,) or (n, 4).

    Returns:
        int8 (n,), index into `LABELS`.

    Example:
        >>> scores = np.log([[0.6, 0.3, 0.05, 0.05]])
        >>> decide(scores).tolist(), decide(scores, np.array([0.0, 1.0, 0.0, 0.0])).tolist()
        ([0], [1])
    """
    return (scores + offsets).argmax(axis=1).astype(np.int8)


def tune(
    scores: np.ndarray, labels: np.ndarray, groups: np.ndarray, given: np.ndarray, metric: str, seed: int = 0
) -> Rule:
    """Return the rule with the best :func:`merit` against the best member, averaged over subsets of the queries.

    Args:
        scores: float (n, 4), raw scores, out of fold.
        labels: int (n,), index into `LABELS`.
        groups: uint64 (n,), query keys.
        given: int (n, k), the class that each member answers with by itself.
        metric: the primary metric.
        seed: of the subsets.

    Returns:
        The rule, tuned on about 20,000 pairs at most.
    """
    keys, query = np.unique(groups, return_inverse=True)
    random = np.random.default_rng(seed)
    share = _SUBSET_SHARE * min(1.0, _MOST_ROWS / len(labels))
    drawn = max(round(share * len(keys)), 1)
    offsets = np.empty((_SUBSETS, CLASSES))
    left_out = np.ones((_SUBSETS, len(keys)), dtype=bool)
    for number in range(_SUBSETS):
        left_out[number, random.permutation(len(keys))[:drawn]] = False
        rows = ~left_out[number][query]
        targets = best_of(labels[rows], given[rows], metric)
        parts = scores[rows], labels[rows], metric, targets
        offsets[number] = (tune_once(*parts) + along_frequencies(*parts)) / 2
    chosen = offsets.mean(axis=0)
    times = left_out.sum(axis=0)
    unseen = np.where(times[:, None] > 0, left_out.T @ offsets / np.maximum(times, 1)[:, None], chosen)
    decisions = np.stack([decide(scores, unseen[query]), decide(scores, chosen)])
    return Rule(chosen, estimated(labels, decisions), decisions)


def best_of(labels: np.ndarray, given: np.ndarray, metric: str) -> dict[str, float]:
    """Return, for each reported metric, the best that a member reaches by itself.

    Args:
        labels: int (n,), index into `LABELS`.
        given: int (n, k), the class that each member answers with by itself.
        metric: the primary metric.

    Returns:
        Metric -> value.
    """
    counts = np.stack([confusion(labels, one) for one in given.T])
    return {name: float(np.max(values)) for name, values in _metrics(counts, metric).items()}


def merit(counts: np.ndarray, metric: str, targets: Targets) -> np.ndarray:
    """Return how good decisions are, against targets.

    A margin is a metric less its target. The merit is the primary metric's margin, and half the mean of the others'.
    Each margin below 0.003 counts four times more as far as it is below: a gain on one metric does not pay for a loss
    on another.

    Args:
        counts: (..., 4, 4), true by predicted.
        metric: the primary metric.
        targets: what each reported metric should reach.

    Returns:
        float64 (...,), in the metrics' unit.
    """
    margins = {name: values - targets[name] for name, values in _metrics(counts, metric).items()}
    others = np.mean([values for name, values in margins.items() if name != metric], axis=0)
    behind = np.sum([np.minimum(values - _AHEAD, 0.0) for values in margins.values()], axis=0)
    return np.asarray(margins[metric] + _OTHERS * others + _BEHIND * behind, dtype=np.float64)


def _metrics(counts: np.ndarray, metric: str) -> dict[str, np.ndarray]:
    found = all_metrics(counts)
    return {name: found[name] if name in METRICS else metric_of(name, counts) for name in told(metric)}


def tune_once(scores: np.ndarray, labels: np.ndarray, metric: str, targets: Targets) -> np.ndarray:
    """Return the offsets with the best :func:`merit` on these pairs, by sweeps over one class after the other.

    Each sweep looks at all offsets of one class, in steps of 0.02 nats up to 3, with the others fixed. Sweeps go on
    until none improves the merit, four times at most. The offset of the first class stays 0: only differences matter.

    Args:
        scores: float (n, 4), raw scores.
        labels: int (n,), index into `LABELS`.
        metric: the primary metric.
        targets: what each reported metric should reach.

    Returns:
        float64 (4,).
    """
    offsets = NO_OFFSETS.copy()
    best = merit(confusion(labels, decide(scores, offsets))[None], metric, targets)[0]
    for _ in range(_SWEEPS):
        before = best
        for one in range(1, CLASSES):
            tried, counts = sweep(scores + offsets, labels, one)
            merits = merit(counts, metric, targets)
            # Of equals the one nearest to no change
            place = np.lexsort((np.abs(tried), -merits))[0]
            if merits[place] > best + 1e-12:
                best = merits[place]
                offsets[one] += tried[place]
        if best <= before + 1e-12:
            break
    return offsets


def along_frequencies(scores: np.ndarray, labels: np.ndarray, metric: str, targets: Targets) -> np.ndarray:
    """Return the offsets with the best :func:`merit` of those that make rare classes more likely, by one number t.

    The offset of a class is -t times the logarithm of its frequency: at t = 1 all classes count alike.

    Args:
        scores: float (n, 4), raw scores.
        labels: int (n,), index into `LABELS`.
        metric: the primary metric.
        targets: what each reported metric should reach.

    Returns:
        float64 (4,), that of the first class is 0.
    """
    shares = np.log(np.maximum(np.bincount(labels, minlength=CLASSES), 1) / len(labels))
    away = shares[0] - shares
    chosen = (scores + _POWERS[:, None, None] * away).argmax(axis=2)  # power by pair
    cells = np.arange(len(_POWERS))[:, None] * CLASSES**2 + np.asarray(labels, np.int64) * CLASSES + chosen
    counts = np.bincount(cells.ravel(), minlength=len(_POWERS) * CLASSES**2).reshape(-1, CLASSES, CLASSES)
    merits = merit(counts, metric, targets)
    return _POWERS[np.lexsort((np.abs(_POWERS), -merits))[0]] * away


def sweep(scores: np.ndarray, labels: np.ndarray, one: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the confusion matrices for all offsets of one class.

    Args:
        scores: float (n, 4), with the offsets of the others.
        labels: int (n,), index into `LABELS`.
        one: the class.

    Returns:
        The offsets, float64 (m,), ascending, and int64 (m, 4, 4), true by predicted.
    """
    others = scores.copy()
    others[:, one] = -np.inf
    rival = others.argmax(axis=1)
    needed = others[np.arange(len(scores)), rival] - scores[:, one]  # an offset above it changes the decision
    tried = np.arange(-_FARTHEST, _FARTHEST + _STEP / 2, _STEP)
    # The first offset that suffices; of equal scores the first class wins, as in argmax
    place = np.searchsorted(tried, needed, side="right")
    place = np.where(one < rival, np.searchsorted(tried, needed, side="left"), place)
    cells, size = np.asarray(labels, np.int64) * CLASSES, CLASSES**2
    start = np.bincount(cells + rival, minlength=size)
    gained = np.bincount(place * size + cells + one, minlength=(len(tried) + 1) * size)
    lost = np.bincount(place * size + cells + rival, minlength=(len(tried) + 1) * size)
    changes = (gained - lost).reshape(-1, size)
    counts = start + np.cumsum(changes[:-1], axis=0)
    return tried, counts.reshape(len(tried), CLASSES, CLASSES)
