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
    told,
)
from esci_tournament.tasks.ensemble.verdict import MetricRow

_INTERVAL = 0.025
_CELLS = CLASSES**2
CHALLENGER, CHAMPION, SINGLE = range(3)


class Evidence:
    """Sums of the test split as it is and of its resamples, all sides beside each other.

    A side is `CHALLENGER`, `CHAMPION` or `SINGLE`, the best model alone; a place is a number in `places`, None for all
    locales.

    Args:
        case: the input in canonical order.
        places: the locales that have a query, sorted.
        settings: the metric, and resamples, seed and threads of the bootstrap.

    Attributes:
        names: the overall metrics.
        calibrated: whether the confidence gaps of all sides are known.
        strata: int64 (q,), place of each query.
        queries: int64 (places,), number of queries.
        actual: float64 (places, columns), sums of counts and gaps.
        drawn: float32 (resamples, places, columns), the same on each resample.
    """

    def __init__(self, case: JudgeInput, places: list[str], settings: JudgeSettings) -> None:
        self.places, self.case = places, case
        self.names = told(settings.primary_metric)
        self._metrics: dict[tuple[int, int | None], tuple[dict[str, np.ndarray], dict[str, np.ndarray]]] = {}
        self.calibrated = case.challenger_gaps is not None and (case.champion is None or case.champion_gaps is not None)
        self._influences: dict[tuple[int, int | None], dict[str, np.ndarray]] = {}
        self.strata = strata = np.searchsorted(places, case.locale) if places else np.zeros(0, np.int64)
        self.queries = np.bincount(strata, minlength=len(places))
        nothing = np.zeros((len(case.challenger), 0))
        blocks = []
        for counts, gaps in (
            (case.challenger, case.challenger_gaps), (case.champion, case.champion_gaps), (case.single, None)
        ):  # fmt: skip
            blocks.append(nothing if counts is None else counts.reshape(len(counts), _CELLS))
            blocks.append(nothing if gaps is None or not self.calibrated else gaps)
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
        influence = self._influence(CHALLENGER, place), self._influence(against, place)
        if name in self.names:
            moved = influence[0][name] - influence[1][name]
        else:
            label = LABELS.index(name.removeprefix("f1 "))
            moved = influence[0]["f1"][:, label] - influence[1]["f1"][:, label]
        return Difference(float(ours[0] - theirs[0]), ours[1] - theirs[1], len(moved), effective_queries(moved))

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
        return Difference(change, errors[0][1] - errors[1][1], queries, effective_queries(moved))

    @staticmethod
    def _miscalibration(gaps: np.ndarray | None) -> np.ndarray:
        """Return what each query adds to the calibration error, up to a factor common to all, float64 (q,)."""
        assert gaps is not None  # calibration is only asked for when both sides have it
        return gaps @ np.sign(gaps.sum(axis=0))

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
        actual, drawn = self.metric(name, 0, place)
        cells = [float(actual), *_interval(drawn)]
        if self.case.champion is not None:
            other, other_drawn = self.metric(name, 1, place)
            cells += [float(other), *_interval(other_drawn), float(actual - other), *_interval(drawn - other_drawn)]
        return MetricRow(scope, title, queries, int(self.counts(0, place)[0].sum()), *cells)

    def _columns(self, block: int, place: int | None) -> tuple[np.ndarray, np.ndarray]:
        start = sum(self.widths[:block])
        chosen = slice(start, start + self.widths[block])
        if place is None:
            return self.actual[:, chosen].sum(axis=0), self.drawn[:, :, chosen].sum(axis=1, dtype=np.float64)
        return self.actual[place, chosen], self.drawn[:, place, chosen].astype(np.float64)


def _interval(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(drawn, (_INTERVAL, 1 - _INTERVAL))
    return float(low), float(high)
