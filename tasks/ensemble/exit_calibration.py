"""Set the thresholds of early exit so that, at 95 % confidence, at most a chosen share of labels changes.

Learn then Test (Angelopoulos, Bates, Candes, Jordan and Lei 2021): one parameter orders the rules from the most to the
least cautious, each rule's risk is tested in that order at the whole error probability, and the last one before the
first failure is taken (fixed-sequence testing). The test is that of `betting.py`, in which a query counts as a whole.

The parameter is the chance t that a label still changes, weighted by the time that is saved. At each stage a logistic
curve gives that chance from the margin of the aggregator so far, and a pair leaves where it is at most t times the
share of the members' time that is still to come. So the risk is spent where it saves most time.

The curves are fitted on a tenth of the queries, and the rules are tested on the others: the rules are fixed before they
are tested, and the one that is served is one that was tested. The scores are out of fold, of folds grouped by query.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile

import numpy as np
from sklearn.linear_model import LogisticRegression

from esci_tournament.registry.errors import UsageError
from esci_tournament.tasks.data.dataset import salted_uniform
from esci_tournament.tasks.ensemble.betting import p_value, queries_needed, upper_bound
from esci_tournament.tasks.ensemble.counts import confusion, metric_of
from esci_tournament.tasks.ensemble.early_exit import CONFIDENCE, EarlyExit, Level, margins, never, too_few, why_off

RISKS = (0.001, 0.0025, 0.005, 0.01, 0.02)  # calibrated beside the one that is asked for
_CHANCES = np.geomspace(1e-4, 0.5, 60)  # from the most to the least cautious
_WIDEST = 10.0  # nats; wider margins count as this
_PARTS = 10  # of the queries: the curves are fitted on one, the rules are tested on the others


@dataclass(frozen=True)
class Curve:
    """The chance that a label still changes, as a logistic curve of the margin.

    Attributes:
        intercept: log odds at margin 0.
        slope: what the log odds fall by for each nat of margin; 0 for the same chance at every margin.
    """

    intercept: float
    slope: float

    @classmethod
    def fit(cls, margin: np.ndarray, changes: np.ndarray) -> Curve:
        """Fit a curve; it is flat when no label or every label changes, or the chance does not fall with the margin.

        Args:
            margin: float (n,), nats.
            changes: bool (n,), whether the label changed afterwards.

        Returns:
            The curve.
        """
        count = int(changes.sum())
        flat = cls(float(np.log((count + 0.5) / (len(changes) - count + 0.5))), 0.0)
        if count in (0, len(changes)):
            return flat
        fitted = LogisticRegression(max_iter=500).fit(np.minimum(margin, _WIDEST)[:, None], changes)
        slope = -float(fitted.coef_[0, 0])
        return cls(float(fitted.intercept_[0]), slope) if slope > 1e-3 else flat

    def margin_of(self, chance: float) -> float:
        """Return the margin from which the chance is at most `chance`.

        Args:
            chance: above 0 and below 1.

        Returns:
            Nats, 0 or more; infinite when no margin is wide enough.
        """
        excess = self.intercept - float(np.log(chance / (1 - chance)))
        if excess <= 0:
            return 0.0
        return excess / self.slope if self.slope else float("inf")


@dataclass(frozen=True)
class Walk:
    """How pairs leave under one rule.

    Attributes:
        stage: int64 (n,), 0 for after one member.
        label: int64 (n,), the label that each pair leaves with.
    """

    stage: np.ndarray
    label: np.ndarray


def calibrate_exit(
    order: Sequence[str],
    scores: Sequence[np.ndarray],
    labels: np.ndarray,
    groups: np.ndarray,
    milliseconds: Sequence[float],
    risk: float,
    metric: str = "macro_f1",
) -> EarlyExit:
    """Return the rule of early exit for `risk`, with what it saves and loses, and for :data:`RISKS` beside it.

    Args:
        order: k members in the order in which they are asked.
        scores: k times float64 (n, 4), decision scores out of fold, of the aggregators of 1, 2, ... k members.
        labels: int8 (n,), index into `LABELS`.
        groups: uint64 (n,), query keys.
        milliseconds: time of a page of 40 of each member in `order`.
        risk: share of labels that may differ from the whole ensemble's; 0 turns early exit off.
        metric: name of the metric in which the loss is given.

    Returns:
        The rule.

    Raises:
        UsageError: if the arguments do not fit each other.
    """
    if not len(order) == len(scores) == len(milliseconds) or not order or not 0 <= risk < 1:
        raise UsageError(
            f"{len(order)} members, {len(scores)} stages, {len(milliseconds)} times, risk {risk}: pass as many "
            "of each, one at least, and a risk in [0, 1)"
        )
    tested = ~set_aside(groups)
    if len(order) == 1 or tested.all() or not tested.any():
        queries = len(np.unique(groups))
        reason = (
            "the ensemble has one member" if len(order) == 1 else f"{queries:,} queries are too few to show anything"
        )
        return EarlyExit(
            tuple(order), never(order, risk), (), metric, len(labels), queries, reason if risk else why_off(0)
        )
    trial = ExitTrial.of(scores, labels, groups, milliseconds, tested)
    levels = tuple(
        trial.level_at(one, metric) for one in sorted({*RISKS, risk} - {0.0})
    )  # each is tested on its own, at 95 %: one of them is chosen, before the data are seen
    rule = EarlyExit(tuple(order), never(order), levels, metric, len(trial.labels), len(trial.sizes))
    return rule.at(risk)


def set_aside(groups: np.ndarray) -> np.ndarray:
    """Return the pairs of the tenth of the queries that curves are fitted on.

    It is every tenth query by falling size, but never one of the four largest, so that the others are of the same
    sizes as all: how much of the pairs is in large queries decides what can be shown.

    Args:
        groups: uint64 (n,), query keys.

    Returns:
        bool (n,); it follows from the keys and the sizes alone.
    """
    keys, query, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    chosen = np.zeros(len(keys), dtype=bool)
    chosen[np.lexsort((salted_uniform(keys, "early-exit"), -sizes))[_PARTS // 2 - 1 :: _PARTS]] = True
    return chosen[query]


def last_below(values: Iterable[float], limit: float) -> int | None:
    """Return the place of the last of the leading entries that are at most `limit`.

    Args:
        values: such as p-values of hypotheses in the order in which they are tested; read up to the first above it.
        limit: the limit, such as the error probability.

    Returns:
        Its index; None when the first entry is above the limit.

    Example:
        >>> last_below([0.001, 0.04, 0.2, 0.03], 0.05)
        1
    """
    count = sum(1 for _ in takewhile(lambda one: one <= limit, values))
    return count - 1 if count else None


@dataclass(frozen=True)
class ExitTrial:
    """The pairs that rules are tested on, and the curves that the rules follow from, fitted on other queries.

    Attributes:
        margin: float64 (n, k - 1), nats, before the last stage.
        label: int64 (n, k), the label at each stage.
        labels: int8 (n,), the true labels.
        query: int64 (n,), number of each pair's query.
        sizes: float64 (q,), pairs of each query.
        milliseconds: float64 (k,), time of each member.
        curves: of the k - 1 stages.
        others: number of queries that the curves are fitted on.
    """

    margin: np.ndarray
    label: np.ndarray
    labels: np.ndarray
    query: np.ndarray
    sizes: np.ndarray
    milliseconds: np.ndarray
    curves: list[Curve]
    others: int

    @classmethod
    def of(
        cls,
        scores: Sequence[np.ndarray],
        labels: np.ndarray,
        groups: np.ndarray,
        milliseconds: Sequence[float],
        tested: np.ndarray,
    ) -> ExitTrial:
        """Return the trial of the aggregators of 1, 2, ... k members.

        Args:
            scores: k times float64 (n, 4), decision scores out of fold.
            labels: int8 (n,), the true labels.
            groups: uint64 (n,), query keys.
            milliseconds: time of each member.
            tested: bool (n,), the pairs of the queries that rules are tested on; curves are fitted on the others.

        Returns:
            The trial, with fitted curves.
        """
        margin = np.stack([margins(one) for one in scores[:-1]], axis=1)
        label = np.stack([one.argmax(axis=1) for one in scores], axis=1)
        changes = label[:, :-1] != label[:, -1:]
        curves = [Curve.fit(margin[~tested, stage], changes[~tested, stage]) for stage in range(margin.shape[1])]
        query = np.unique(groups[tested], return_inverse=True)[1]
        return cls(
            margin[tested],
            label[tested],
            labels[tested],
            query,
            np.bincount(query).astype(np.float64),
            np.asarray(milliseconds, dtype=np.float64),
            curves,
            len(np.unique(groups[~tested])),
        )

    def thresholds(self, chance: float) -> np.ndarray:
        """Return the margin from which a pair leaves at each stage.

        Args:
            chance: chance that a label still changes, scaled at each stage by the share of time to come.

        Returns:
            float64 (k - 1,), nats, infinite for never.
        """
        total = self.milliseconds.sum()
        to_come = 1 - np.cumsum(self.milliseconds)[:-1] / total if total > 0 else np.ones(len(self.curves))
        allowed = np.clip(chance * to_come, 1e-12, 1 - 1e-12)
        return np.array([curve.margin_of(float(one)) for curve, one in zip(self.curves, allowed, strict=True)])

    def walk(self, chance: float) -> Walk:
        """Return how the pairs leave."""
        leaves = self.margin >= self.thresholds(chance)
        last = leaves.shape[1]
        stage = np.where(leaves.any(axis=1), leaves.argmax(axis=1), last)
        return Walk(stage, self.label[np.arange(len(stage)), stage])

    @cached_property
    def wrong(self) -> np.ndarray:
        """Changed labels of each query at each of the 60 chances, float64 (60, q)."""
        whole = self.label[:, -1]
        return np.stack(
            [
                np.bincount(self.query, weights=self.walk(chance).label != whole, minlength=len(self.sizes))
                for chance in _CHANCES
            ]
        )

    def level_at(self, risk: float, metric: str) -> Level:
        """Return the boldest rule that is shown to keep a risk, and its effect.

        Args:
            risk: share of labels that may differ, above 0 and below 1.
            metric: name of the metric in which the loss is given.

        Returns:
            The rule; one at which no pair leaves, with the reason, where nothing is shown.
        """
        doubt = 1 - CONFIDENCE
        place = last_below((p_value(one, self.sizes, risk) for one in self.wrong), doubt)
        thresholds = np.full(len(self.curves), np.inf) if place is None else self.thresholds(_CHANCES[place])
        if place is None or np.isinf(thresholds).all():
            return replace(never([""] * len(self.milliseconds), risk), reason=self._why_off(risk))
        walk, whole, members = self.walk(_CHANCES[place]), self.label[:, -1], len(self.milliseconds)
        spent = np.cumsum(self.milliseconds)
        before, after = (metric_of(metric, confusion(self.labels, told)) for told in (whole, walk.label))
        return Level(
            risk,
            tuple(None if np.isinf(one) else float(one) for one in thresholds),
            disagreement=float((walk.label != whole).mean()),
            bound=upper_bound(self.wrong[place], self.sizes, risk, doubt),
            calls_saved=float(1 - (walk.stage + 1).mean() / members),
            milliseconds_saved=float(1 - spent[walk.stage].mean() / spent[-1]) if spent[-1] > 0 else 0.0,
            metric_lost=float(before - after),
            exits=tuple((np.bincount(walk.stage, minlength=members) / len(whole)).tolist()),
        )

    def _why_off(self, risk: float) -> str:
        """Return why no rule is shown to keep `risk`: too few queries for any rule, or no rule is good enough."""
        queries = len(self.sizes) + self.others
        needed = queries_needed(self.sizes, risk, 1 - CONFIDENCE)
        if needed <= len(self.sizes):
            return why_off(risk)
        largest = float(self.sizes.max() / self.sizes.sum())
        return too_few(risk, queries, largest, math.ceil(needed * queries / len(self.sizes)))
