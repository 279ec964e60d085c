"""A test and an upper bound of the share of wrong pairs, with the query as the unit: betting on whole queries.

Queries are independent of each other; within a query, pairs may be wrong together in any way. The null hypothesis is
that a share of at least r is wrong: the expected numbers of wrong pairs of all queries add up to r times the pairs or
more. A gambler with a wealth of 1 bets against it. Query q, with W of its pairs wrong, multiplies the wealth by
1 - b (W - t), where the numbers t of all queries add up to r times the pairs, and the bet b is so small that no factor
can be negative. Under the null hypothesis the expected wealth is then at most 1: the expectation of a product of
independent factors is the product of their expectations, and as these are 1 or less on average, their product is 1 or
less, by the inequality of arithmetic and geometric means. The same holds for the mean wealth over several fixed bets.
By Markov's inequality the wealth reaches 1 / level with a probability of at most `level`. Nothing is approximated;
sizes are taken as given, and the order of the queries does not matter. See Waudby-Smith and Ramdas (2024), "Estimating
means of bounded random variables by betting", Journal of the Royal Statistical Society B 86.

Here t is the number of a query's pairs beyond c, with c such that these add up to r times the pairs, and the largest
bet is 1 / c. If all queries have s pairs, t is r s. If sizes differ, no test refuses with fewer queries when nothing is
wrong, but for the part of the wealth that is on other bets: where each query of s > c pairs is wrong as a whole with
probability 1 - c / s, the null hypothesis is true, and nothing is wrong with a probability of 1 / wealth.
"""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

# Shares of the largest bet, and how the first wealth is divided. The largest bet earns most where few pairs of each
# query are wrong, the others are for queries that are wrong as a whole; they cost a tenth more queries if none is.
_BETS = np.array([0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
_ON_LARGEST = 0.7
_STAKES = np.append(np.full(len(_BETS) - 1, (1 - _ON_LARGEST) / (len(_BETS) - 1)), _ON_LARGEST)
_STEPS = 50  # shares that are tested in turn for the upper bound


def p_value(wrong: np.ndarray, sizes: np.ndarray, share: float) -> float:
    """Return a p-value of the null hypothesis that a share of at least `share` of the pairs is wrong.

    Args:
        wrong: float (q,), wrong pairs of each query, 0 to its size.
        sizes: float (q,), pairs of each query, 1 or more; one query at least.
        share: above 0 and below 1.

    Returns:
        0 to 1. If the null hypothesis is true, it is p or less with a probability of at most p.

    Example:
        >>> wrong, sizes = np.zeros(3000), np.full(3000, 20.0)
        >>> wrong[:3] = 20
        >>> round(p_value(wrong, sizes, 0.005), 4)
        0.0084
    """
    size = _largest_loss(sizes, share)
    lost = (wrong - np.maximum(sizes - size, 0.0)) / size
    with np.errstate(divide="ignore"):  # a large query that is all wrong takes all of the largest bet
        wealth = np.log(np.maximum(1 - _BETS * lost[:, None], 0.0)).sum(axis=0)
    return float(np.exp(min(-float(logsumexp(wealth, b=_STAKES)), 0.0)))


def upper_bound(wrong: np.ndarray, sizes: np.ndarray, share: float, level: float) -> float:
    """Return the one-sided upper confidence bound of the share of wrong pairs, if it is at most `share`.

    Fiftieths of `share` are tested from `share` downwards, each at `level`, up to the first that is not refused. That
    is a bound, because where a share is refused so are all above it: their null hypotheses imply its own.

    Args:
        wrong: float (q,), wrong pairs of each query, 0 to its size.
        sizes: float (q,), pairs of each query, 1 or more; one query at least.
        share: where to begin, above 0 and below 1; to be chosen without a look at `wrong`.
        level: error probability, above 0 and below 1.

    Returns:
        The smallest share that is refused, never below the observed one; 1 when `share` itself is not refused.

    Example:
        >>> round(upper_bound(np.zeros(1000), np.full(1000, 20.0), 0.005, level=0.05), 5)
        0.0033
    """
    bound = 1.0
    for step in range(_STEPS, 0, -1):
        tested = share * step / _STEPS
        if p_value(wrong, sizes, tested) > level:
            break
        bound = tested
    return bound


def queries_needed(sizes: np.ndarray, share: float, level: float) -> int:
    """Return how many queries of such sizes it takes to refuse `share` when no pair is wrong.

    Args:
        sizes: float (q,), pairs of each query, 1 or more; one query at least.
        share: above 0 and below 1.
        level: error probability, above 0 and below 1.

    Returns:
        Queries, rounded up; for more of them with the same sizes in the same proportions.

    Example:
        >>> queries_needed(np.full(100, 20.0), 0.005, level=0.05)
        669
    """
    size = _largest_loss(sizes, share)
    each = float(np.log(np.maximum(sizes / size, 1.0)).mean())
    return int(np.ceil(-np.log(level * _ON_LARGEST) / each))


def _largest_loss(sizes: np.ndarray, share: float) -> float:
    """Return the size c for which the pairs of the queries beyond c each add up to `share` of all pairs."""
    falling = np.sort(np.asarray(sizes, dtype=np.float64))[::-1]
    cut = (np.cumsum(falling) - share * falling.sum()) / np.arange(1, len(falling) + 1)
    # With c for the n largest, n is right where the next one is not above c
    return float(cut[np.argmax(cut >= np.append(falling[1:], 0.0))])
