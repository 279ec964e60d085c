"""Alpha spending: every look at test pairs spends part of the probability that a home ever promotes falsely."""

from __future__ import annotations

from dataclasses import dataclass

from scipy.special import zeta

from esci_tournament.registry.errors import UsageError

EXPONENT = 1.5
SPENDABLE = 0.8  # of alpha; the rest is kept for what the bootstrap, an approximation, gets wrong on small splits
KEPT = 0.5  # new pairs leave at least this share of what a home has left whose pairs never change
LITTLE_LEFT = 0.25


@dataclass(frozen=True)
class History:
    """The looks of a home that promoted nothing: what they spent is spent for ever.

    Attributes:
        looks: how many there were, at whatever test pairs.
        seen: sum over them of the share of this split's pairs that they saw, 0 to `looks`; None if all saw all.
        spent: error probability that they spent together; None for what as many looks spend that saw all pairs.
    """

    looks: int = 0
    seen: float | None = None
    spent: float | None = None


@dataclass(frozen=True)
class Look:
    """One look at test pairs.

    Attributes:
        number: 1 for the first look.
        level: error probability this look may spend.
        left: share of what all looks may spend that is left after this look, 0 to 1.
        before: the same before this look.
        sentence: level and share in words.
    """

    number: int
    level: float
    left: float
    before: float
    sentence: str


def look_at(before: History, alpha: float) -> Look:
    """Return the level of the next look.

    All looks of a home share 0.8 * alpha, whatever test pairs they are at, so by the union bound the chance that a home
    without any better challenger ever promotes one is below alpha. A look that promotes gives back what it spent. With
    tail(n) = n**-1.5 + (n + 1)**-1.5 + ..., look n at the same pairs spends the share n**-1.5 / tail(n) of what is
    left: 0.8 * alpha * n**-1.5 / zeta(1.5). The first looks get most: a series that never ends must fall, and a slow
    fall leaves something for the fiftieth look too.

    Where pairs are new, looks so far count in proportion to the pairs that they saw: n is 1 + seen instead of 1 +
    looks. What that adds is taken from later looks, so it stops at half of what a home whose pairs never change has
    left: a home whose pairs are new each time has at least half the level of one whose pairs stay.

    Args:
        before: the looks so far that promoted nothing.
        alpha: error probability of all looks together, between 0 and 1.

    Returns:
        The look.

    Raises:
        UsageError: if the history contradicts itself, or alpha is no probability.

    Example:
        >>> round(look_at(History(), alpha=0.05).level, 4), round(look_at(History(9), alpha=0.05).level, 5)
        (0.0153, 0.00048)
        >>> round(look_at(History(9, seen=0), alpha=0.05).level, 5)
        0.0038
    """
    seen = before.looks if before.seen is None else before.seen
    if before.looks < 0 or not 0 <= seen <= before.looks or (before.spent or 0) < 0 or not 0 < alpha < 1:
        raise UsageError(
            f"{before.looks} looks of which {seen} saw these pairs, {before.spent} spent, at alpha {alpha}: give 0 or "
            "more looks, as many or fewer that saw them, nothing negative, and an alpha between 0 and 1"
        )
    number, of_all = before.looks + 1, float(zeta(EXPONENT))
    rest = _tail(number) / of_all if before.spent is None else max(1 - before.spent / (SPENDABLE * alpha), 0.0)
    steady = rest * _share(number)
    bold = min(rest * _share(1 + seen), rest - KEPT * _tail(number + 1) / of_all)
    share = max(steady, bold)
    level, left = SPENDABLE * alpha * share, rest - share
    spent = f"it may err with probability {level:.2g}; {left:.0%} of what alpha {alpha:g} allows is left"
    sentence = f"look {number} of this home without a promotion: {spent}"
    if left < LITTLE_LEFT:
        sentence += (
            "; little is left, so that only large gains can still win here: test pairs with fresh labels are given "
            "more of it, and a promotion gives back what its look spent"
        )
    return Look(number, level, left, rest, sentence)


def _share(place: float) -> float:
    """Return the share of what is left that the look at a place of the series takes, 0 to 1."""
    return float(place**-EXPONENT / _tail(place))


def _tail(first: float) -> float:
    """Return the sum of j**-1.5 over j = first, first + 1, ..."""
    return float(zeta(EXPONENT, first))
