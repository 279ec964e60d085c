"""What a gain is worth that was selected for being large: its estimate and interval, given that it won."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr, ndtri_exp

from esci_tournament.tasks.ensemble.bootstrap import Difference
from esci_tournament.tasks.ensemble.verdict import Check

_MISSED = 0.05  # of the intervals miss the true gain
_BEYOND = 0.005  # of the winners whose true gain is the threshold lie farther from it than the reach; part of the above
_MISSES = (_MISSED - _BEYOND) / (1 - _BEYOND)


def given_that_it_won(gain: Difference, wins: Sequence[Check], route: str) -> dict[str, float | None] | None:
    """Return what a gain is worth beside what was measured, knowing that it was large enough to win.

    Args:
        gain: challenger minus champion.
        wins: the checks by which a challenger can win; each compares a lower bound of the gain with its threshold.
        route: name of the one that it won by, or "".

    Returns:
        `measured`: the gain as measured, `measured_low` and `measured_high`: its interval as it is, both None where too
        little is known for one; `error`: its standard error; `cut`: the least gain that would have won, in the
        metric's unit; `estimate`, `low` and `high`: see :func:`conditional`. None where it did not win.
    """
    won = next((check for check in wins if check.name == route), None)
    if won is None or won.value is None or won.threshold is None:
        return None
    # A smaller gain moves the bound as much, whether the percentile or Student's quantile makes it
    cut = min(gain.value - (won.value - won.threshold), gain.value)
    away = (cut - won.threshold) / gain.error if gain.error else 0.0
    estimate, low, high = conditional(gain.value, gain.error, cut, reach(away))
    naive_low, naive_high = gain.interval()
    measured = {"measured": gain.value, "measured_low": naive_low, "measured_high": naive_high}
    return measured | {"error": gain.error, "cut": cut, "estimate": estimate, "low": low, "high": high}


def reach(away: float) -> float:
    """Return how far below the measured value the true one is looked for, in standard errors.

    Without such a limit the interval of a gain just above the cut would reach to minus infinity (Andrews, Kitagawa and
    McCloskey 2024 call the limited one hybrid). A true value that equals the threshold lies beyond it in 0.5 % of its
    wins, which the interval's level makes up for.

    Args:
        away: from the threshold to the cut, in standard errors, 0 or more.

    Returns:
        The limit, in standard errors.

    Example:
        >>> round(reach(2.16), 2)
        3.78
    """
    return float(-ndtri_exp(np.log(_BEYOND) + log_ndtr(-away)))


def conditional(value: float, error: float, cut: float, limit: float = 8.0) -> tuple[float, float, float]:
    """Return the estimate and the interval of a normal mean, of which only a value above a cut is reported.

    The measured value itself is too large on average: small gains are reported when they were lucky. The estimate is
    the mean at which a reported value is as likely above as below what was measured, so it is too large as often as it
    is too small (Zhong and Prentice 2008). The interval holds the means at which no more than 95 % of the reported
    values are nearer to the mean (the shortest acceptance regions of Weinstein, Fithian and Benjamini 2013). One with
    equal tails would not even hold the value if that is just above the cut.

    Args:
        value: as measured, not below the cut.
        error: its standard error, the same unit; 0 leaves the value as it is.
        cut: values up to it are not reported.
        limit: how far below the value the mean may be, in standard errors; see :func:`reach`.

    Returns:
        Estimate, lower and upper end. The estimate is not above the value, and the interval holds both.

    Raises:
        ValueError: if the value is below the cut, or the error is negative or not finite.

    Example:
        >>> [round(one, 2) for one in conditional(3.0, 1.0, 2.0)]
        [2.69, -0.3, 4.99]
        >>> [round(one, 2) for one in conditional(9.0, 1.0, 2.0)]
        [9.0, 7.0, 11.0]
    """
    if not (np.isfinite(error) and error >= 0 and value >= cut):
        raise ValueError(
            f"a value of {value} +- {error} is not reported with a cut at {cut}; pass one that is not below it"
        )
    if error == 0:
        return value, value, value
    excess = (value - cut) / error
    estimate = _where(lambda mean: _as_large(mean, excess) - 0.5, -limit, 1.0)
    low = _where(lambda mean: _as_far(mean, excess) - _MISSES, -limit, 0.0)
    high = _where(lambda mean: _as_far(mean, excess) - _MISSES, 0.0, 3.0)
    return value + error * min(estimate, 0.0), value + error * low, value + error * high


def _where(off: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function crosses 0; the lower end where it is above 0 there already."""
    if low < 0 and off(low) >= 0:
        return low
    return float(brentq(off, low, high, xtol=1e-13))


def _as_large(mean: float, excess: float) -> float:
    """Return the probability that a reported value is as large as the one at 0, with the cut at -`excess`."""
    return float(np.exp(log_ndtr(mean) - log_ndtr(excess + mean)))


def _as_far(mean: float, excess: float) -> float:
    """Return the probability that a reported value is as far from the mean as the one at 0."""
    if 2 * mean <= -excess:  # whatever is as far below the mean is not reported
        return _as_large(mean, excess)
    nearer = ndtr(abs(mean)) - ndtr(max(-abs(mean), -excess - mean))
    return float(1 - nearer / ndtr(excess + mean))
