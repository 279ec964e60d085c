"""Alpha spending: every look at a test split spends part of the probability of a false promotion."""

from __future__ import annotations

from dataclasses import dataclass

from scipy.special import zeta

from esci_tournament.registry.errors import UsageError

EXPONENT = 1.5
SPENDABLE = 0.8  # of alpha; the rest is kept for what the bootstrap, an approximation, gets wrong on small splits
LITTLE_LEFT = 0.25


@dataclass(frozen=True)
class Look:
    """One look at a test split.

    Attributes:
        number: 1 for the first look.
        level: error probability this look may spend.
        left: share of what all looks may spend that is left after this look, 0 to 1.
        sentence: the same in words.
    """

    number: int
    level: float
    left: float
    sentence: str


def look_at(looks_before: int, alpha: float) -> Look:
    """Return the level of the next look at a test split.

    Look k spends 0.8 * alpha * k**-1.5 / zeta(1.5). All looks that will ever be stay below alpha, so by the union bound
    the chance that a split without any better challenger ever promotes one is at most alpha, however the challengers
    depend on one another. The first looks get most of it: a series that never ends must fall, and a slow fall leaves
    something for the fiftieth look too.

    Args:
        looks_before: looks that were made at the split before, 0 or more.
        alpha: error probability of all looks together, between 0 and 1.

    Returns:
        The look.

    Raises:
        UsageError: if there were fewer than no looks, or alpha is no probability.

    Example:
        >>> round(look_at(0, alpha=0.05).level, 4), round(look_at(9, alpha=0.05).level, 5)
        (0.0153, 0.00048)
    """
    if looks_before < 0 or not 0 < alpha < 1:
        raise UsageError(f"{looks_before} looks at alpha {alpha}: give 0 or more looks and an alpha between 0 and 1")
    number = looks_before + 1
    level = SPENDABLE * alpha * number**-EXPONENT / float(zeta(EXPONENT))
    left = float(zeta(EXPONENT, number + 1) / zeta(EXPONENT))
    spent = f"it may err with probability {level:.2g}; {left:.0%} of what alpha {alpha:g} allows is left"
    sentence = f"look {number} at this test split: {spent}"
    if left < LITTLE_LEFT:
        sentence += "; little is left, so that only large gains can still win here: fresh test labels renew it"
    return Look(number, level, left, sentence)
