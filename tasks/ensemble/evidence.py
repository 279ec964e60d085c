"""The numbers of a verdict: both sides and the best model alone, on the test split and on resamples of it."""

from __future__ import annotations

import numpy as np

from esci_tournament.registry.labels import CLASSES, LABELS
from esci_tournament.tasks.ensemble.bootstrap import Difference, effective_queries, resampled_sums
from esci_tournament.tasks.ensemble.case import JudgeInput, JudgeSettings
from esci_tournament.tasks.ensemble.counts import (
    METRICS,
    all_metrics,
    calibration_error,
    influence_of,
    influences,
    metric_of,
    slopes,
    told,
)
from esci_tournament.tasks.ensemble.recurrence import Recurrence
from esci_tournament.tasks.ensemble.verdict import MetricRow

_CELLS = CLASSES**2
CHALLENGER, CHAMPION, SINGLE = range(3)
_LOSSES = 6  # the block of the challenger's losses; two blocks of each of the three sides stand before it


class Evidence:
    """Sums of the test split as it is and of its resamples, all sides beside each other.

    A side is `CHALLENGER`, `CHAMPION` or `SINGLE`, the best model alone; a place is a number in `places`, None for all
    locales.

    Args:
        case: the input in canonical order; with weights, all numbers are weighted by query.
        places: the locales that have a query, sorted.
        settings: the metric, and resamples, seed and threads of the bootstrap.

    Attributes:
        names: the overall metrics.
        calibrated: whether the confidence gaps of all sides are known.
        scored: whether the log loss of both sides is known.
        strata: int64 (q,), place of each query.
        queries: int64 (places,), number of queries.
        actual: float64 (places, columns), sums of counts and gaps.
        drawn: float32 (resamples, places, columns), the same on each resample.
    """

    def __init__(self, case: JudgeInput, places: list[str], settings: JudgeSettings) -> None:
        self.places, self._pairs = places, case.challenger.sum(axis=(1, 2))
        self.case = case = case.weighted()
        self.names = told(settings.primary_metric)
        self._metrics: dict[tuple[int, int | None], tuple[dict[str, np.ndarray], dict[str, np.ndarray]]] = {}
        self.calibrated = case.challenger_gaps is not None and (case.champion is None or case.champion_gaps is not None)
        self.scored = case.losses_known
        self._influences: dict[tuple[int, int | None], dict[str, np.ndarray]] = {}
        self._slopes: dict[tuple[int, int | None], dict[str, np.ndarray]] = {}
        self._recurrences: dict[int | None, Recurrence] = {}
        self.strata = strata = np.searchsorted(places, case.locale) if places else np.zeros(0, np.int64)
        self.queries = np.bincount(strata, minlength=len(places))
        nothing = np.zeros((len(case.challenger), 0))
        blocks = []
        for counts, gaps in (
            (case.challenger, case.challenger_gaps), (case.champion, case.champion_gaps), (case.single, None)
        ):  # fmt: skip
            blocks.append(nothing if counts is None else counts.reshape(len(counts), _CELLS))
            blocks.append(nothing if gaps is None or not self.calibrated else gaps)
        for losses in (case.challenger_loss, case.champion_loss):
            blocks.append(nothing if losses is None or not self.scored else losses[:, None])
        self.widths = [block.shape[1] for block in blocks]
        values = np.concatenate(blocks, axis=1)
        self.actual = np.stack([values[strata == s].sum(axis=0) for s in range(len(places))]) if places else values[:0]
        self.drawn = resampled_sums(
            values.astype(np.float32), strata, settings.resamples, settings.seed, settings.threads
        )

    def counts(self, side: int, place: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Return the confusion matrix of one side and its resamples.

        Args:
            side: `CHALLENGER`, `CHAMPION` or `SINGLE`.
            place: number of a locale, or None for all.

        Returns:
            float64 (4, 4) and (r, 4, 4), true by predicted.
        """
        actual, drawn = self._columns(2 * side, place)
        return actual.reshape(CLASSES, CLASSES), drawn.reshape(-1, CLASSES, CLASSES)

    def metric(self, name: str, side: int, place: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Return a metric of one side and its resamples.

        Args:
            name: one of `names`, or "f1 E" and so on for the F1 of a class.
            side: `CHALLENGER`, `CHAMPION` or `SINGLE`.
            place: number of a locale, or None for all.

        Returns:
            A number, and float64 (r,).
        """
        if (side, place) not in self._metrics:
            actual, drawn = self.counts(side, place)
            self._metrics[side, place] = all_metrics(actual), all_metrics(drawn)
            for further in self.names[len(METRICS) :]:
                for of, found in zip((actual, drawn), self._metrics[side, place], strict=True):
                    found[further] = metric_of(further, of)
        whole, resampled = self._metrics[side, place]
        if name in self.names:
            return whole[name], resampled[name]
        label = LABELS.index(name.removeprefix("f1 "))
        return whole["f1"][label], resampled["f1"][:, label]

    def difference(self, name: str, place: int | None = None, against: int = CHAMPION) -> Difference:
        """Return challenger minus another side on a metric; there must be such a side.

        Args:
            name: as in :meth:`metric`.
            place: number of a locale, or None for all.
            against: the other side.

        Returns:
            The difference with its resamples.
        """
        ours, theirs = self.metric(name, CHALLENGER, place), self.metric(name, against, place)
        recurring, effective = self._recurring(name, place, CHALLENGER, against)
        return Difference(float(ours[0] - theirs[0]), ours[1] - theirs[1], len(self._here(place)), effective, recurring)

    def _recurring(self, name: str, place: int | None, *sides: int) -> tuple[float, float]:
        """Return the variance that recurring products add, and the effective number of clusters.

        Of a metric of the first of `sides`, less that of the second if there is one.
        """
        moved = _less([_of(name, self._influence(side, place)) for side in sides])
        pairs = self.case.recurring
        if pairs is None:
            return 0.0, effective_queries(moved)
        recurrence = self._recurrence(place)
        cells = [pairs.cells(side)[recurrence.chosen] for side in sides]
        by_pair = [_of(name, self._slope(side, place))[cell] for side, cell in zip(sides, cells, strict=True)]
        return recurrence.added(moved, _less(by_pair))

    def _recurrence(self, place: int | None) -> Recurrence:
        if place not in self._recurrences:
            assert self.case.recurring is not None  # it is only asked for where products are known
            here = self._here(place)
            strata = np.zeros(len(here), np.int64) if place is not None else self.strata
            sizes = self.case.challenger[here].sum(axis=(1, 2))
            self._recurrences[place] = Recurrence(self.case.recurring, self.case.query_key[here], strata, sizes)
        return self._recurrences[place]

    def _here(self, place: int | None) -> np.ndarray:
        """Return the rows of the queries of a locale, or of all."""
        return np.arange(len(self.strata)) if place is None else np.flatnonzero(self.strata == place)

    def _slope(self, side: int, place: int | None) -> dict[str, np.ndarray]:
        if (side, place) not in self._slopes:
            self._slopes[side, place] = slopes(self.names[len(METRICS) :], self.counts(side, place)[0])
        return self._slopes[side, place]

    def _influence(self, side: int, place: int | None) -> dict[str, np.ndarray]:
        if (side, place) not in self._influences:
            counts = (self.case.challenger, self.case.champion, self.case.single)[side]
            assert counts is not None  # differences are only asked for when there is such a side
            here = slice(None) if place is None else self.strata == place
            more = {name: influence_of(name, counts[here]) for name in self.names[len(METRICS) :]}
            self._influences[side, place] = influences(counts[here]) | more
        return self._influences[side, place]

    def calibration(self) -> Difference:
        """Return champion minus challenger on the expected calibration error: a loss of calibration is negative."""
        errors = []
        for side in (1, 0):
            actual, drawn = self._columns(2 * side + 1, None)
            pairs = self.counts(side, None)
            errors.append(
                (calibration_error(actual, pairs[0].sum()), calibration_error(drawn, pairs[1].sum(axis=(1, 2))))
            )
        queries = len(self.strata)
        moved = self._miscalibration(self.case.champion_gaps) - self._miscalibration(self.case.challenger_gaps)
        change = float(errors[0][0] - errors[1][0])
        recurring, effective = 0.0, effective_queries(moved)
        known = self.case.recurring
        if known is not None and known.gaps_known:
            by_pair = self._signs(self.case.champion_gaps)[known.champion_bin] * known.champion_gap
            by_pair = by_pair - self._signs(self.case.challenger_gaps)[known.challenger_bin] * known.challenger_gap
            recurring, effective = self._recurrence(None).added(moved, by_pair)
            recurring /= max(float(self.case.challenger.sum()), 1.0) ** 2  # to the unit of the error: a mean over pairs
        return Difference(change, errors[0][1] - errors[1][1], queries, effective, recurring)

    def loss(self) -> Difference:
        """Return champion minus challenger on the mean log loss in nats: a gain is positive."""
        case, total = self.case, float(self.case.challenger.sum())
        assert case.challenger_loss is not None  # it is only asked for when both are known
        assert case.champion_loss is not None
        sizes = self.counts(CHALLENGER, None)
        means = [
            (actual[0] / sizes[0].sum(), drawn[:, 0] / sizes[1].sum(axis=(1, 2)))
            for actual, drawn in (self._columns(block, None) for block in (_LOSSES, _LOSSES + 1))
        ]
        change, resampled = float(means[1][0] - means[0][0]), means[1][1] - means[0][1]
        moved = (case.champion_loss - case.challenger_loss - change * case.challenger.sum(axis=(1, 2))) / total
        recurring, effective = 0.0, effective_queries(moved)
        known = case.recurring
        if known is not None and known.challenger_loss is not None and known.champion_loss is not None:
            by_pair = (known.champion_loss - known.challenger_loss - change) / total
            recurring, effective = self._recurrence(None).added(moved, by_pair)
        return Difference(change, resampled, len(self.strata), effective, recurring)

    def _miscalibration(self, gaps: np.ndarray | None) -> np.ndarray:
        """Return what each query adds to the calibration error, up to a factor common to all, float64 (q,)."""
        assert gaps is not None  # calibration is only asked for when both sides have it
        return gaps @ self._signs(gaps)

    @staticmethod
    def _signs(gaps: np.ndarray | None) -> np.ndarray:
        assert gaps is not None  # as above
        return np.sign(gaps.sum(axis=0))

    def table(self) -> tuple[MetricRow, ...]:
        """Return all metrics: overall, by locale, and F1 by class."""
        rows = []
        for place in (None, *range(len(self.places))):
            scope = "all" if place is None else self.places[place]
            rows += [self._row(scope, name, name, place) for name in self.names]
        rows += [self._row(f"class {label}", "f1", f"f1 {label}", None) for label in LABELS]
        return tuple(rows)

    def _row(self, scope: str, title: str, name: str, place: int | None) -> MetricRow:
        queries = int(self.queries.sum() if place is None else self.queries[place])
        actual, drawn = self.metric(name, CHALLENGER, place)
        own = self._with_interval(name, place, float(actual), drawn, CHALLENGER)
        cells: list[float | None] = []
        if self.case.champion is not None:
            other, other_drawn = self.metric(name, CHAMPION, place)
            cells += self._with_interval(name, place, float(other), other_drawn, CHAMPION)
            cells += self._with_interval(name, place, float(actual - other), drawn - other_drawn, CHALLENGER, CHAMPION)
        return MetricRow(scope, title, queries, int(self._pairs[self._here(place)].sum()), *own, *cells)

    def _with_interval(
        self, name: str, place: int | None, value: float, drawn: np.ndarray, *sides: int
    ) -> tuple[float, float | None, float | None]:
        """Return a value and both ends of its interval: of a metric of one side, or of it less that of another."""
        recurring, effective = self._recurring(name, place, *sides)
        answers = [_of(name, self._slope(side, place)).reshape(CLASSES, CLASSES) for side in sides]
        most = max(float(np.ptp(one, axis=1).max()) for one in answers)
        low, high = Difference(value, drawn, len(self._here(place)), effective, recurring, most).interval()
        if low is not None and high is not None and len(sides) == 1 and (name in METRICS or name.startswith("f1 ")):
            low, high = max(low, 0.0), min(high, 1.0)
        return value, low, high

    def _columns(self, block: int, place: int | None) -> tuple[np.ndarray, np.ndarray]:
        start = sum(self.widths[:block])
        chosen = slice(start, start + self.widths[block])
        if place is None:
            return self.actual[:, chosen].sum(axis=0), self.drawn[:, :, chosen].sum(axis=1, dtype=np.float64)
        return self.actual[place, chosen], self.drawn[:, place, chosen].astype(np.float64)


def _of(name: str, found: dict[str, np.ndarray]) -> np.ndarray:
    """Return the entry of a metric; one named "f1 E" and so on is a column of the F1 of all classes."""
    return found[name] if name in found else found["f1"][:, LABELS.index(name.removeprefix("f1 "))]


def _less(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] - parts[1] if len(parts) > 1 else parts[0]
