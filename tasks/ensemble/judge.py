"""Is the challenger better? Pure: the same counts, settings and number of looks always give the same verdict."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol

import numpy as np

from registry.errors import UsageError
from tasks.data.dataset import LABEL_NAMES, LABELS
from tasks.ensemble.bootstrap import Difference, quantile, resampled_sums
from tasks.ensemble.budget import Budget, Cost
from tasks.ensemble.counts import (
    CLASSES,
    CONFIDENCE_BINS,
    METRICS,
    calibration_error,
    class_f1,
    confidence_gaps,
    confusion_by_query,
    metric_of,
)
from tasks.ensemble.spending import Look, look_at
from tasks.ensemble.verdict import Check, MetricRow, Verdict

_GUARD_LEVEL = 0.025  # a true loss as large as the margin passes a guardrail with this probability
_GUARD_POWER = 0.2  # a guardrail is fit to judge if an equal challenger passes it with probability 1 - this
_HARM_LEVEL = 0.1  # where data is too little for that, a loss this significant still refuses
_INTERVAL = 0.025
_CELLS = CLASSES**2


class DeclaredSettings(Protocol):
    """The part of :class:`registry.settings.Settings` that the judge reads."""

    primary_metric: str
    required_gain: float
    alpha: float
    resamples: int
    guardrail_margin: float
    minimum_test_queries: int
    seed: int


@dataclass(frozen=True)
class JudgeSettings:
    """Every threshold of the judge; `of` reads them from the settings in force.

    Attributes:
        not_worse_margin: loss on the primary metric that a cheaper challenger may at most have.
        cheaper_by: share of memory or time that must be saved to count as cheaper, the other no worse.
        threads: of the bootstrap; they do not change its result.
    """

    primary_metric: str = "macro_f1"
    required_gain: float = 0.0
    alpha: float = 0.05
    resamples: int = 10_000
    guardrail_margin: float = 0.02
    minimum_test_queries: int = 50
    not_worse_margin: float = 0.005
    cheaper_by: float = 0.1
    seed: int = 0
    threads: int = field(default=2, compare=False)

    @classmethod
    def of(cls, settings: DeclaredSettings) -> JudgeSettings:
        """Return the judge's part of `settings`."""
        names = (
            "primary_metric",
            "required_gain",
            "alpha",
            "resamples",
            "guardrail_margin",
            "minimum_test_queries",
            "seed",
        )
        return cls(**{name: getattr(settings, name) for name in names})


@dataclass(frozen=True)
class JudgeInput:
    """Everything about a test split that a verdict follows from.

    Attributes:
        query_key: uint64 (q,), unique. locale: str (q,).
        challenger, champion: int32 (q, 4, 4), confusion of each query, true label by predicted; champion may be None.
        challenger_gaps, champion_gaps: float64 (q, 15), see :func:`tasks.ensemble.counts.confidence_gaps`, or None.
        expected_locales: locales that the ensemble serves; each needs test data.
        challenger_cost, champion_cost: measured cost of the ensembles, or None.
        budget: what the challenger must fit, or None.
        looks: looks that were made at this test split before this one.
    """

    query_key: np.ndarray
    locale: np.ndarray
    challenger: np.ndarray
    champion: np.ndarray | None = None
    challenger_gaps: np.ndarray | None = None
    champion_gaps: np.ndarray | None = None
    expected_locales: tuple[str, ...] = ()
    challenger_cost: Cost | None = None
    champion_cost: Cost | None = None
    budget: Budget | None = None
    looks: int = 0

    @classmethod
    def from_probabilities(
        cls,
        labels: np.ndarray,
        groups: np.ndarray,
        locales: Sequence[str] | np.ndarray,
        challenger: np.ndarray,
        champion: np.ndarray | None = None,
        **rest: object,
    ) -> JudgeInput:
        """Return the input made from the test pairs.

        Args:
            labels: int8 (n,). groups: uint64 (n,), query keys. locales: str (n,).
            challenger, champion: float32 (n, 4), probabilities of both ensembles.
            rest: the remaining fields of the class.
        """
        keys, counts = confusion_by_query(labels, challenger.argmax(axis=1), groups)
        first = np.unique(groups, return_index=True)[1]
        other, other_gaps = None, None
        if champion is not None:
            other = confusion_by_query(labels, champion.argmax(axis=1), groups)[1]
            other_gaps = confidence_gaps(labels, champion, groups)
        return cls(
            keys, np.asarray(locales).astype(str)[first], counts, other,
            confidence_gaps(labels, challenger, groups), other_gaps, **rest,  # type: ignore[arg-type]
        )  # fmt: skip

    def canonical(self) -> JudgeInput:
        """Return the same with the queries in ascending order.

        Raises:
            UsageError: if shapes do not fit, a query stands twice, or both sides saw different labels.
        """
        rows = len(self.query_key)
        for name in ("challenger", "champion"):
            counts = getattr(self, name)
            if counts is not None and counts.shape != (rows, CLASSES, CLASSES):
                raise UsageError(f"{name}'s counts have shape {counts.shape}; pass ({rows}, {CLASSES}, {CLASSES})")
        if len(self.locale) != rows or len(np.unique(self.query_key)) != rows:
            raise UsageError("the judge needs one row for each query: a query stands twice or a locale is missing")
        if self.champion is not None and not np.array_equal(self.challenger.sum(axis=2), self.champion.sum(axis=2)):
            raise UsageError(
                "challenger and champion were not scored on the same test pairs; score both on the same split"
            )
        order = np.argsort(self.query_key, kind="stable")
        changed = {
            name: None if (array := getattr(self, name)) is None else np.asarray(array)[order]
            for name in ("query_key", "locale", "challenger", "champion", "challenger_gaps", "champion_gaps")
        }
        return JudgeInput(**{**self.__dict__, **changed})


def judge(case: JudgeInput, settings: JudgeSettings | None = None) -> Verdict:
    """Return the verdict on a challenger.

    Promote when the lower bound of the gain on the primary metric, at the level left for this look, is above the required
    gain (or, for a cheaper challenger, above minus `not_worse_margin`) and no guardrail is hurt.

    Raises:
        UsageError: if the input contradicts itself.
    """
    settings = settings or JudgeSettings()
    case = case.canonical()
    look = look_at(case.looks, settings.alpha)
    present = sorted(set(case.locale.tolist()))
    numbers = _Numbers(case, present, settings)
    metrics = numbers.table()
    missing = _missing(case, present, settings)
    budget = _budget_checks(case)
    digest = _digest(case, settings)
    if missing:
        return Verdict(
            "not_evaluable", "not evaluable: " + "; ".join(text for _, text in missing), "", tuple(budget), metrics,
            tuple(code for code, _ in missing), (), look.number, look.level, look.left + look.level / settings.alpha,
            False, digest,
        )  # fmt: skip
    gain = numbers.difference(lambda counts: metric_of(settings.primary_metric, counts))
    wins = [_gain_check(gain, look, settings)]
    if cheaper := _saving(case, settings):
        wins.append(_cheaper_check(gain, look, settings, cheaper))
    guards = _guards(numbers, present, settings)
    outcome, route, reason = _decide(wins, guards + budget)
    cautions = [check.sentence for check in guards if not check.judged]
    if look.left < 0.25:
        cautions.append(look.sentence)
    return Verdict(
        outcome, reason, route, (*wins, *guards, *budget), metrics, (), tuple(cautions), look.number, look.level,
        look.left, True, digest,
    )  # fmt: skip


class _Numbers:
    """Sums of the test split as it is and of its resamples, challenger and champion side by side."""

    def __init__(self, case: JudgeInput, places: list[str], settings: JudgeSettings) -> None:
        self.places, self.case = places, case
        self.calibrated = case.challenger_gaps is not None and (case.champion is None or case.champion_gaps is not None)
        strata = np.searchsorted(places, case.locale) if places else np.zeros(0, np.int64)
        self.queries = np.bincount(strata, minlength=len(places))
        sides = [(case.challenger, case.challenger_gaps)]
        if case.champion is not None:
            sides.append((case.champion, case.champion_gaps))
        blocks = []
        for counts, gaps in sides:
            blocks.append(counts.reshape(len(counts), _CELLS))
            blocks.append(gaps if self.calibrated and gaps is not None else np.zeros((len(counts), 0)))
        self.widths = [block.shape[1] for block in blocks]
        values = np.concatenate(blocks, axis=1)
        self.actual = np.stack([values[strata == s].sum(axis=0) for s in range(len(places))]) if places else values[:0]
        self.drawn = resampled_sums(
            values.astype(np.float32), strata, settings.resamples, settings.seed, settings.threads
        )

    def counts(self, side: int, place: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Return the confusion matrix (4, 4) and its resamples (r, 4, 4) of one side, in one locale or in all."""
        actual, drawn = self._columns(2 * side, place)
        return actual.reshape(CLASSES, CLASSES), drawn.reshape(-1, CLASSES, CLASSES)

    def difference(self, metric: Callable[[np.ndarray], np.ndarray], place: int | None = None) -> Difference:
        """Return challenger minus champion on `metric`, in one locale or in all."""
        ours, theirs = self.counts(0, place), self.counts(1, place)
        queries = int(self.queries.sum() if place is None else self.queries[place])
        return Difference(float(metric(ours[0]) - metric(theirs[0])), metric(ours[1]) - metric(theirs[1]), queries)

    def calibration(self) -> Difference:
        """Return champion minus challenger on the expected calibration error: a loss of calibration is negative."""
        errors = []
        for side in (1, 0):
            actual, drawn = self._columns(2 * side + 1, None)
            pairs = self.counts(side, None)
            errors.append(
                (calibration_error(actual, pairs[0].sum()), calibration_error(drawn, pairs[1].sum(axis=(1, 2))))
            )
        return Difference(float(errors[0][0] - errors[1][0]), errors[0][1] - errors[1][1], int(self.queries.sum()))

    def table(self) -> tuple[MetricRow, ...]:
        """Return all metrics: overall, by locale, and F1 by class."""
        rows = []
        for place in (None, *range(len(self.places))):
            scope = "all" if place is None else self.places[place]
            for name in METRICS:
                rows.append(self._row(scope, name, lambda counts, name=name: metric_of(name, counts), place))
        for position, label in enumerate(LABELS):
            rows.append(self._row(f"class {label}", "f1", lambda counts, c=position: class_f1(counts)[..., c], None))
        return tuple(rows)

    def _row(self, scope: str, name: str, metric: Callable[[np.ndarray], np.ndarray], place: int | None) -> MetricRow:
        queries = int(self.queries.sum() if place is None else self.queries[place])
        actual, drawn = self.counts(0, place)
        cells: list[float] = [float(metric(actual)), *_interval(metric(drawn))]
        if self.case.champion is not None:
            other, other_drawn = self.counts(1, place)
            cells += [float(metric(other)), *_interval(metric(other_drawn))]
            cells += [cells[0] - cells[3], *_interval(metric(drawn) - metric(other_drawn))]
        return MetricRow(scope, name, queries, int(actual.sum()), *cells)

    def _columns(self, block: int, place: int | None) -> tuple[np.ndarray, np.ndarray]:
        start = sum(self.widths[:block])
        chosen = slice(start, start + self.widths[block])
        if place is None:
            return self.actual[:, chosen].sum(axis=0), self.drawn[:, :, chosen].sum(axis=1, dtype=np.float64)
        return self.actual[place, chosen], self.drawn[:, place, chosen].astype(np.float64)


def _finite(bound: float) -> float | None:
    """JSON has no infinity."""
    return float(bound) if np.isfinite(bound) else None


def _interval(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(drawn, (_INTERVAL, 1 - _INTERVAL))
    return float(low), float(high)


def _missing(case: JudgeInput, present: list[str], settings: JudgeSettings) -> list[tuple[str, str]]:
    missing = []
    if case.champion is None:
        missing.append(("champion", "there is no champion to compare with"))
    if (queries := len(case.query_key)) < settings.minimum_test_queries:
        text = f"{queries} test queries are too few, {settings.minimum_test_queries} are needed"
        missing.append(("queries", text))
    for place in case.expected_locales:
        if place not in present:
            missing.append((f"locale {place}", f"locale {place} is served but has no test data"))
    return missing


def _gain_check(gain: Difference, look: Look, settings: JudgeSettings) -> Check:
    bound = gain.lower(look.level)
    passed = bound > settings.required_gain
    sentence = (
        f"{settings.primary_metric} changes by {gain.value:+.4f}; at the level of this look ({look.level:.2g}) it is at "
        f"least {bound:+.4f}, {'above' if passed else 'not above'} the required gain of {settings.required_gain:+.4f}"
    )
    return Check("gain", passed, True, _finite(bound), settings.required_gain, sentence)


def _cheaper_check(gain: Difference, look: Look, settings: JudgeSettings, saving: str) -> Check:
    bound, threshold = gain.lower(look.level), -settings.not_worse_margin
    passed = bound > threshold
    sentence = (
        f"it is cheaper ({saving}); {settings.primary_metric} is at least {bound:+.4f} of the champion's, "
        f"{'within' if passed else 'not within'} the loss of {settings.not_worse_margin:.4f} that a saving may cost"
    )
    return Check("cheaper", passed, True, _finite(bound), threshold, sentence)


def _saving(case: JudgeInput, settings: JudgeSettings) -> str:
    """Return what the challenger saves, in words; empty unless it is cheaper on one axis and no dearer on the other."""
    new, old = case.challenger_cost, case.champion_cost
    if new is None or old is None or new.memory_mib > old.memory_mib or new.milliseconds > old.milliseconds:
        return ""
    parts = []
    for name, ours, theirs in (
        ("memory", new.memory_mib, old.memory_mib),
        ("time", new.milliseconds, old.milliseconds),
    ):
        if theirs > 0 and (saved := 1 - ours / theirs) >= settings.cheaper_by:
            parts.append(f"{saved:.0%} less {name}")
    return ", ".join(parts)


def _guards(numbers: _Numbers, present: list[str], settings: JudgeSettings) -> list[Check]:
    margin = settings.guardrail_margin
    guards = []
    for name in METRICS:
        if name != settings.primary_metric:
            guards.append(guard(name, numbers.difference(lambda counts, n=name: metric_of(n, counts)), margin))
    for place, locale in enumerate(present):
        change = numbers.difference(lambda counts: metric_of(settings.primary_metric, counts), place)
        guards.append(guard(f"{settings.primary_metric} in locale {locale}", change, margin))
    for position, (label, word) in enumerate(zip(LABELS, LABEL_NAMES, strict=True)):
        change = numbers.difference(lambda counts, c=position: class_f1(counts)[..., c])
        guards.append(guard(f"F1 of class {label} ({word})", change, margin))
    if numbers.calibrated:
        guards.append(guard("calibration", numbers.calibration(), margin))
    return guards


def guard(name: str, change: Difference, margin: float) -> Check:
    """Return the check that `change` is no loss of `margin` or more.

    Three cases. The lower bound is above minus the margin: not worse, shown. It is not, although the data is fine enough
    that an equal challenger would have passed four times in five: refused. The data is too coarse for that: not judged,
    and said so; then only a significant loss refuses. So a locale with 50 pairs neither blocks each challenger
    nor passes a collapse, and the report never calls it judged.
    """
    bound = change.lower(_GUARD_LEVEL)
    needed = quantile(_GUARD_LEVEL, change.queries) + quantile(_GUARD_POWER, change.queries)
    fine = needed * change.error <= margin
    facts = f"{name} changes by {change.value:+.4f} (at least {bound:+.4f}, {change.queries} queries)"
    if bound > -margin:
        return Check(name, True, True, bound, -margin, f"{facts}: not worse by {margin:g}")
    if fine:
        return Check(name, False, True, bound, -margin, f"{facts}: a loss of {margin:g} cannot be ruled out")
    harmed = change.upper(_HARM_LEVEL) < 0
    if harmed:
        sentence = f"{facts}: the data is coarse, yet the loss is significant"
        return Check(name, False, True, change.upper(_HARM_LEVEL), 0.0, sentence)
    if np.isfinite(change.error):
        wanted = f"about {int(np.ceil(change.queries * (needed * change.error / margin) ** 2)):,} queries are needed"
    else:
        wanted = "at least five queries are needed to say anything"
    sentence = f"{facts}: too little data to rule out a loss of {margin:g}, {wanted}; nothing speaks against it so far"
    return Check(name, True, False, _finite(bound), -margin, sentence.replace("-inf", "an unknown amount"))


def _budget_checks(case: JudgeInput) -> list[Check]:
    if case.budget is None or case.challenger_cost is None:
        return []
    excess = case.budget.excess(case.challenger_cost)
    words = "fits the budget" if excess <= 0 else "exceeds the budget"
    sentence = f"the challenger takes {case.budget.describe(case.challenger_cost)}: it {words}"
    return [Check("budget", excess <= 0, True, excess, 0.0, sentence)]


def _decide(wins: list[Check], guards: list[Check]) -> tuple[str, str, str]:
    won = next((check for check in wins if check.passed), None)
    hurt = [check for check in guards if not check.passed]
    unjudged = [check.name for check in guards if not check.judged]
    if won is None:
        return "refuse", "", "refused: " + "; ".join(check.sentence for check in wins)
    if hurt:
        return "refuse", "", "refused although it wins: " + "; ".join(check.sentence for check in hurt)
    reason = f"promote: {won.sentence}; no guardrail is hurt"
    if unjudged:
        reason += f"; too little data to judge {', '.join(unjudged)}"
    return "promote", won.name, reason


def _digest(case: JudgeInput, settings: JudgeSettings) -> str:
    rest = {key: value for key, value in asdict(settings).items() if key != "threads"}
    rest |= {"locales": list(case.expected_locales), "looks": case.looks}
    for name in ("challenger_cost", "champion_cost", "budget"):
        value = getattr(case, name)
        rest[name] = None if value is None else asdict(value)
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for name in ("query_key", "challenger", "champion", "challenger_gaps", "champion_gaps"):
        array = getattr(case, name)
        if array is not None:
            kind = {"query_key": "<u8", "challenger": "<i4", "champion": "<i4"}.get(name, "<f8")
            digest.update(name.encode() + np.ascontiguousarray(array, dtype=kind).tobytes())
    digest.update("\x1f".join(case.locale.tolist()).encode())
    return digest.hexdigest()
