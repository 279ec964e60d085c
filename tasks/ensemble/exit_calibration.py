"""Set the thresholds of early exit so that, at 95 % confidence, at most a chosen share of labels changes.

Learn then Test (Angelopoulos, Bates, Candes, Jordan and Lei 2021): one parameter orders the rules from the most to the
least cautious, each rule's risk is tested in that order at the whole error probability, and the last one before the
first failure is taken (fixed-sequence testing). The test is the bound of `clustered.py`, which allows for correlated
pairs within a query.

The parameter is the chance t that a label still changes, weighted by the time that is saved. At each stage a logistic
curve gives that chance from the margin of the aggregator so far, and a pair leaves where it is at most t times the
share of the members' time that is still to come. So the risk is spent where it saves most time.

Everything is fitted without the query it is tried on: scores are out of fold, of folds grouped by query, and so
are the curves. The curves that are served are fitted on all pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression

from esci_tournament.registry.errors import UsageError
from esci_tournament.tasks.ensemble.clustered import design_effect, upper_bound
from esci_tournament.tasks.ensemble.counts import confusion, metric_of
from esci_tournament.tasks.ensemble.early_exit import CONFIDENCE, EarlyExit, Level, margins, never, why_off
from esci_tournament.tasks.ensemble.fitting import fold_of

RISKS = (0.001, 0.0025, 0.005, 0.01, 0.02)  # calibrated beside the one that is asked for
_CHANCES = np.geomspace(1e-4, 0.5, 60)  # from the most to the least cautious
_WIDEST = 10.0  # nats; wider margins count as this
_FEW = 30  # changed labels needed to estimate the design effect


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
    folds: int,
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
        folds: folds that the scores are out of (`fold_of`).
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
    queries = len(np.unique(groups))
    if len(order) == 1 or not len(labels):
        reason = "the ensemble has one member" if len(order) == 1 else why_off(risk, 0, 0)
        return EarlyExit(tuple(order), never(order, risk), (), metric, len(labels), queries, reason)
    trial = ExitTrial.of(scores, groups, milliseconds, folds)
    bounds = trial.bounds()
    levels = tuple(
        _level_at(trial, bounds, one, labels, metric) for one in sorted({*RISKS, risk} - {0.0})
    )  # each is tested on its own, at 95 %: one of them is chosen, before the data are seen
    rule = EarlyExit(tuple(order), never(order), levels, metric, len(labels), queries)
    return rule.at(risk)


def last_below(bounds: np.ndarray, risk: float) -> int | None:
    """Return the place of the last of the leading entries that are at most `risk`.

    Args:
        bounds: float (m,).
        risk: the limit.

    Returns:
        Its index; None when the first entry is above the limit.

    Example:
        >>> last_below(np.array([0.001, 0.004, 0.02, 0.003]), 0.005)
        1
    """
    above = np.flatnonzero(bounds > risk)
    count = int(above[0]) if len(above) else len(bounds)
    return count - 1 if count else None


@dataclass(frozen=True)
class ExitTrial:
    """Margins and labels of all stages, and the curves that are tried on each fold.

    Attributes:
        margin: float64 (n, k - 1), nats, before the last stage.
        label: int64 (n, k), the label at each stage.
        fold: int64 (n,), fold of each pair's query.
        query: int64 (n,), number of each pair's query.
        sizes: float64 (q,), pairs of each query.
        milliseconds: float64 (k,), time of each member.
        held_out: for each fold, the curves of all stages, fitted without it.
        final: the curves of all stages, fitted on all pairs.
    """

    margin: np.ndarray
    label: np.ndarray
    fold: np.ndarray
    query: np.ndarray
    sizes: np.ndarray
    milliseconds: np.ndarray
    held_out: list[list[Curve]]
    final: list[Curve]

    @classmethod
    def of(
        cls, scores: Sequence[np.ndarray], groups: np.ndarray, milliseconds: Sequence[float], folds: int
    ) -> ExitTrial:
        """Return the trial of the aggregators of 1, 2, ... k members.

        Args:
            scores: k times float64 (n, 4), decision scores out of fold.
            groups: uint64 (n,), query keys.
            milliseconds: time of each member.
            folds: number of folds that the scores are out of.

        Returns:
            The trial, with fitted curves.
        """
        margin = np.stack([margins(one) for one in scores[:-1]], axis=1)
        label = np.stack([one.argmax(axis=1) for one in scores], axis=1)
        changes = label[:, :-1] != label[:, -1:]
        fold = fold_of(groups, folds)
        query = np.unique(groups, return_inverse=True)[1]
        stages = range(margin.shape[1])

        def curves(rows: np.ndarray) -> list[Curve]:
            return [Curve.fit(margin[rows, stage], changes[rows, stage]) for stage in stages]

        return cls(
            margin,
            label,
            fold,
            query,
            np.bincount(query).astype(np.float64),
            np.asarray(milliseconds, dtype=np.float64),
            [curves(fold != number) for number in range(folds)],
            curves(np.ones(len(fold), dtype=bool)),
        )

    def thresholds(self, curves: Sequence[Curve], chance: float) -> np.ndarray:
        """Return the margin from which a pair leaves at each stage.

        Args:
            curves: of the k - 1 stages.
            chance: chance that a label still changes, scaled at each stage by the share of time to come.

        Returns:
            float64 (k - 1,), nats, infinite for never.
        """
        total = self.milliseconds.sum()
        to_come = 1 - np.cumsum(self.milliseconds)[:-1] / total if total > 0 else np.ones(len(curves))
        allowed = np.clip(chance * to_come, 1e-12, 1 - 1e-12)
        return np.array([curve.margin_of(float(one)) for curve, one in zip(curves, allowed, strict=True)])

    def walk(self, chance: float) -> Walk:
        """Return how pairs leave under curves that have not seen their query."""
        needed = np.stack([self.thresholds(curves, chance) for curves in self.held_out])[self.fold]
        leaves = self.margin >= needed
        last = leaves.shape[1]
        stage = np.where(leaves.any(axis=1), leaves.argmax(axis=1), last)
        return Walk(stage, self.label[np.arange(len(stage)), stage])

    def bounds(self) -> np.ndarray:
        """Return the upper bound of the share of changed labels at each of the 60 chances, float64."""
        wrong = [
            np.bincount(self.query, weights=self.walk(chance).label != self.label[:, -1], minlength=len(self.sizes))
            for chance in _CHANCES
        ]
        # Where few labels change, the design effect is that of a less cautious rule
        bounds, effect = np.empty(len(wrong)), 1.0
        for place in reversed(range(len(wrong))):
            if wrong[place].sum() >= _FEW:
                effect = design_effect(wrong[place], self.sizes)
            bounds[place] = upper_bound(wrong[place], self.sizes, 1 - CONFIDENCE, effect)
        return bounds


def _level_at(trial: ExitTrial, bounds: np.ndarray, risk: float, labels: np.ndarray, metric: str) -> Level:
    place = last_below(bounds, risk)
    members = len(trial.milliseconds)
    off = never([""] * members, risk)
    if place is None:
        return off
    thresholds = trial.thresholds(trial.final, _CHANCES[place])
    if np.isinf(thresholds).all():
        return off
    walk, whole = trial.walk(_CHANCES[place]), trial.label[:, -1]
    spent = np.cumsum(trial.milliseconds)
    lost = metric_of(metric, confusion(labels, whole)) - metric_of(metric, confusion(labels, walk.label))
    return Level(
        risk,
        tuple(None if np.isinf(one) else float(one) for one in thresholds),
        disagreement=float((walk.label != whole).mean()),
        bound=float(bounds[place]),
        calls_saved=float(1 - (walk.stage + 1).mean() / members),
        milliseconds_saved=float(1 - spent[walk.stage].mean() / spent[-1]) if spent[-1] > 0 else 0.0,
        metric_lost=float(lost),
        exits=tuple((np.bincount(walk.stage, minlength=members) / len(labels)).tolist()),
    )
