"""An upper bound on a rare share with correlated pairs within a query: Clopper-Pearson on an effective sample size."""

from __future__ import annotations

import numpy as np
from scipy.stats import beta
from scipy.stats import t as student


def design_effect(wrong: np.ndarray, sizes: np.ndarray) -> float:
    """Return the variance of the share of wrong pairs, divided by its variance if all pairs were independent.

    The variance of the ratio of two sums over queries (by linearisation) divided by that of a binomial share. 1 when
    no pair or every pair is wrong, or there is one query: the data then cannot show it.

    Args:
        wrong: float (q,), wrong pairs of each query.
        sizes: float (q,), pairs of each query.

    Returns:
        The ratio of variances; above 1 when the pairs of a query are alike.
    """
    queries, pairs = len(sizes), float(sizes.sum())
    share = float(wrong.sum()) / pairs
    if queries < 2 or not 0 < share < 1:
        return 1.0
    variance = queries / (queries - 1) * float(((wrong - share * sizes) ** 2).sum()) / pairs**2
    return variance / (share * (1 - share) / pairs)


def upper_bound(wrong: np.ndarray, sizes: np.ndarray, level: float, at_least: float = 1.0) -> float:
    """Return the one-sided upper confidence bound of the share of wrong pairs at error probability `level`.

    Korn and Graubard (1998), "Confidence intervals for proportions with small expected number of positive counts
    estimated from survey data", Survey Methodology 24: the bound of Clopper and Pearson with the pairs divided by the
    design effect and by the squared ratio of Student's quantiles with queries - 1 and pairs - 1 degrees of freedom. The
    design effect is never taken to be below 1, so that the bound is never below that of independent pairs.

    Args:
        wrong: float (q,), wrong pairs of each query.
        sizes: float (q,), pairs of each query.
        level: one-sided error probability, 0 to 1.
        at_least: a design effect known from elsewhere, for when there are too few wrong pairs to estimate it.

    Returns:
        A share, 0 to 1; 1 for fewer than two queries.

    Example:
        >>> round(upper_bound(np.zeros(100), np.ones(100), level=0.05), 4)
        0.0295
    """
    queries, pairs = len(sizes), float(sizes.sum())
    if queries < 2:
        return 1.0
    effect = max(1.0, at_least, design_effect(wrong, sizes))
    ratio = student.isf(level, pairs - 1) / student.isf(level, queries - 1)
    effective = pairs / effect * min(float(ratio) ** 2, 1.0)
    hits = effective * float(wrong.sum()) / pairs
    return 1.0 if effective - hits <= 0 else float(beta.isf(level, hits + 1, effective - hits))
