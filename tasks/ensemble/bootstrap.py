"""Paired bootstrap over queries, within locales, on counts: resampled sums of 640,000 pairs take seconds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numba import njit
from scipy.stats import t as student

_CELLS_AT_ONCE = 8_000_000  # 32 MB of float32 weights a thread
_TAIL_DRAWS = 10  # a quantile with fewer resamples beyond it is noise
FEWEST = 4.0  # effective queries, and changed answers, that an interval needs: see docs/decisions.md
_MISSED = 0.05


@dataclass(frozen=True)
class Difference:
    """A difference, challenger minus champion, with its bootstrap distribution; or a metric of one side.

    Attributes:
        value: on the test split as it is.
        resampled: float64 (r,), the same on each resample.
        queries: queries it was measured on.
        effective: effective number of queries, (sum d**2)**2 / sum d**4 over the queries' influences d. Two models
            that differ in five answers to a rare class differ in five places, however many queries there are: a normal
            bound on so few events is too narrow, and Student's with `effective` - 1 degrees of freedom is not. Where
            products recur it counts them too, see `recurring`.
        recurring: variance that is added because products recur over queries, in the metric's squared unit; see
            :class:`esci_tournament.tasks.ensemble.recurrence.Recurrence`.
        answer: the most that one changed answer moves the metric, in its unit; 0 where that is not known.
    """

    value: float
    resampled: np.ndarray
    queries: int
    effective: float
    recurring: float = 0.0
    answer: float = 0.0

    @cached_property
    def error(self) -> float:
        """Standard error; infinite below five queries, where a bootstrap is of no use."""
        if self.queries < 5:
            return float("inf")
        alone = float(self.resampled.std(ddof=1))
        return float(np.hypot(alone, np.sqrt(self.recurring))) if self.recurring else alone

    def lower(self, level: float) -> float:
        """Return the one-sided lower bound at an error probability.

        The lower of the bootstrap's percentile and of Student's bound on its standard error: each alone is too narrow
        somewhere (the percentile far out in the tail, Student's on skewed metrics). With fewer than ten resamples
        beyond the percentile, Student's is used alone. Where products recur, the percentile is as much farther from the
        value as the standard error is larger.

        Args:
            level: error probability, 0 to 1.

        Returns:
            The bound in the metric's unit; minus infinity below five queries.
        """
        return self._bound(level, -1)

    def upper(self, level: float) -> float:
        """Return the one-sided upper bound at error probability `level`; see :meth:`lower`."""
        return self._bound(level, 1)

    def interval(self) -> tuple[float, float] | tuple[None, None]:
        """Return the 95 % interval that is shown, or two times None where too little is known for one.

        Student's, with 3 * `effective` - 1 degrees of freedom: q - 1 for q queries with normal influences, of which
        the effective number is q / 3, and fewer the heavier their tails are. The bounds of a check have a third of
        them, because they lie farther out, where the normal distribution holds less well. A resample varies less than a
        sample by (q - 1) / q, which is made up for here.

        There is none with fewer than `FEWEST` effective queries, nor where the variance is less than that of `FEWEST`
        answers that count most: then no such answer may have been seen by chance, and the error is far too small.

        Returns:
            Both ends in the metric's unit.
        """
        if not 0 < self.error < np.inf:
            return None, None
        alone = float(self.resampled.var(ddof=1)) * self.queries / (self.queries - 1)
        variance = alone + self.recurring
        if self.effective < FEWEST or variance < FEWEST * self.answer**2:
            return None, None
        far = quantile(_MISSED / 2, 3 * self.effective) * float(np.sqrt(variance))
        return self.value - far, self.value + far

    def _bound(self, level: float, side: int) -> float:
        if not np.isfinite(self.error):
            return side * float("inf")
        far = self.value + side * quantile(level, self.effective) * self.error
        if level * len(self.resampled) < _TAIL_DRAWS:
            return float(far)
        (near,) = widened(self.value, self.resampled, (level if side < 0 else 1 - level,), self.recurring)
        return min(far, near) if side < 0 else max(far, near)


def widened(value: float, resampled: np.ndarray, shares: tuple[float, ...], recurring: float) -> tuple[float, ...]:
    """Return percentiles of resamples, moved away from the value as a further variance asks for.

    Args:
        value: on the test split as it is.
        resampled: float64 (r,), the same on each resample.
        shares: of the resamples below, 0 to 1.
        recurring: variance to add to that of the resamples; 0 leaves the percentiles as they are.

    Returns:
        One percentile for each share.

    Example:
        >>> around = np.linspace(-1, 1, 101)
        >>> [round(one, 2) for one in widened(0.0, around, (0.025, 0.975), 3 * float(around.var(ddof=1)))]
        [-1.9, 1.9]
    """
    found = tuple(float(one) for one in np.quantile(resampled, shares))
    alone = float(resampled.var(ddof=1)) if recurring else 0.0
    if not alone:  # nothing to add, or nothing to stretch
        return found
    factor = float(np.sqrt(1 + recurring / alone))
    return tuple(value + (one - value) * factor for one in found)


@lru_cache(maxsize=1024)
def quantile(level: float, effective: float) -> float:
    """Return Student's quantile with `effective` - 1 degrees of freedom, at least 1.

    Args:
        level: one-sided error probability, 0 to 1.
        effective: effective number of queries.

    Returns:
        The number of standard errors.

    Example:
        >>> round(quantile(0.025, 1e9), 2)
        1.96
    """
    return float(student.isf(level, max(effective - 1, 1.0)))


def effective_queries(influence: np.ndarray) -> float:
    """Return the effective number of queries, (sum d**2)**2 / sum d**4.

    Args:
        influence: float (q,), the influence d of each query.

    Returns:
        A number from 1 to q; q when no query has any influence.

    Example:
        >>> effective_queries(np.array([1.0, 1.0, 1.0, 0.0]))
        3.0
    """
    squares = influence**2
    fourth = float((squares**2).sum())
    return float(squares.sum()) ** 2 / fourth if fourth > 0 else float(len(influence))


def resampled_sums(values: np.ndarray, strata: np.ndarray, resamples: int, seed: int, threads: int = 1) -> np.ndarray:
    """Return the sums of resampled queries.

    Each resample draws, within each stratum, as many queries with replacement as it has. Sums of counts below 2**24
    are exact. The draws follow from the seed, the stratum and the number of the resample alone, so that neither the
    threads nor the sizes of blocks change them.

    Args:
        values: float32 (q, columns), one row a query, in a canonical order.
        strata: int64 (q,), 0, 1, ... without a gap.
        resamples: number of resamples, r.
        seed: of the draws.
        threads: threads to use.

    Returns:
        float32 (r, strata, columns).
    """
    number = int(strata.max()) + 1 if len(strata) else 0
    sums = np.empty((resamples, number, values.shape[1]), dtype=np.float32)
    jobs = []
    for stratum in range(number):
        rows = np.ascontiguousarray(values[strata == stratum], dtype=np.float32)
        block = max(_CELLS_AT_ONCE // max(len(rows), 1), 1)
        jobs += [(stratum, rows, start, min(start + block, resamples)) for start in range(0, resamples, block)]

    def work(job: tuple[int, np.ndarray, int, int]) -> None:
        stratum, rows, start, stop = job
        weights = np.zeros((stop - start, len(rows)), dtype=np.float32)
        _draw(weights, np.uint64(seed), np.uint64(stratum), np.uint64(start))
        sums[start:stop, stratum] = weights @ rows

    if threads > 1 and len(jobs) > 1:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, jobs))
    else:
        for job in jobs:
            work(job)
    return sums


@njit(cache=True, nogil=True)
def _mix(state):  # pragma: no cover - compiled
    """SplitMix64's output function (Steele, Lea and Flood 2014)."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


@njit(cache=True, nogil=True)
def _draw(weights, seed, stratum, first):  # pragma: no cover - compiled
    step = np.uint64(0x9E3779B97F4A7C15)
    queries = np.uint64(weights.shape[1])
    for row in range(weights.shape[0]):
        state = _mix(_mix(_mix(seed + step) ^ (stratum + step)) ^ (first + np.uint64(row) + step))
        for _ in range(weights.shape[1]):
            state += step
            # The upper 32 bits scaled to [0, queries): biased by less than queries / 2**32
            weights[row, ((_mix(state) >> np.uint64(32)) * queries) >> np.uint64(32)] += np.float32(1)
