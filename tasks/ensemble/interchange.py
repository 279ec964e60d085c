"""Which models can stand for each other: by re-fits without one, without the other, and without both.

Two members are interchangeable when the ensemble needs one of them and does not need both: without either one the
metric stays where it is, without both it falls. A model that is out is interchangeable with a member that the ensemble
needs when the metric stays where it is with that model in the member's place. "Falls" means by more than two standard
errors over queries (`Game.contrast`). "Stays" means a change within two of them, and together with one of them within
half of what is lost without both: where pairs are few, errors are large, and a large change would be within them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from esci_tournament.tasks.ensemble.similarity import Likeness
from esci_tournament.tasks.ensemble.value import Game

_ERRORS = 2.0  # standard errors beyond which a difference is one
_ALIKE = 0.3  # correlation of errors from which two models are looked at
MOST_PAIRS = 12  # pairs looked at: each may take two re-fits


@dataclass(frozen=True)
class Interchange:
    """Two models that can stand for each other.

    Attributes:
        first: name of a member.
        second: name of another member, or of a model that is out.
        kept: whether both are members.
        difference: the metric with the second and without the first, less that with the first and without the second,
            in the metric's unit.
        error: standard error of the difference.
        together: what the metric loses without both.
        together_error: its standard error.
        sentence: the same in words.
    """

    first: str
    second: str
    kept: bool
    difference: float
    error: float
    together: float
    together_error: float
    sentence: str


def interchangeable(game: Game, members: Sequence[str], likeness: Sequence[Likeness]) -> tuple[Interchange, ...]:
    """Return the pairs of models that can stand for each other, the most alike first.

    Only models whose errors correlate at 0.3 or more are looked at, and at most 12 pairs.

    Args:
        game: the metric of each set of models; sets that are not known are fitted.
        members: names of the ensemble's members.
        likeness: of every two models, the most alike first.

    Returns:
        One entry a pair, at least one of each a member.
    """
    kept = frozenset(members)
    alike = [(pair.first, pair.second) for pair in likeness if pair.correlation >= _ALIKE]
    pairs = [(one, other) if one in kept else (other, one) for one, other in alike if {one, other} & kept]
    return tuple(_compared(game, kept, pairs[:MOST_PAIRS]))


def _compared(game: Game, kept: frozenset[str], pairs: Sequence[tuple[str, str]]) -> Iterator[Interchange]:
    for first, second in pairs:
        both = second in kept
        neither = kept - {first, second}
        losses = [game.contrast([(1.0, kept), (-1.0, kept - {one})]) for one in ((first, second) if both else (first,))]
        together, together_error = game.contrast([(1.0, kept), (-1.0, neither)])
        needed = [loss > _ERRORS * error for loss, error in losses]
        # Of two members neither is needed beside the other, but one of them is; one that is out replaces a needed one
        if any(needed) if both else not all(needed):
            continue
        difference, error = game.contrast([(1.0, neither | {second}), (-1.0, neither | {first})])
        stays = [*(losses if both else ()), (abs(difference), error)]
        falls = together > _ERRORS * together_error
        if not falls or any(change > min(_ERRORS * off, together / 2 - off) for change, off in stays):
            continue
        sentence = _words(first, second, both, losses, (together, together_error), (difference, error))
        yield Interchange(first, second, both, difference, error, together, together_error, sentence)


def _words(
    first: str,
    second: str,
    both: bool,
    losses: Sequence[tuple[float, float]],
    together: tuple[float, float],
    difference: tuple[float, float],
) -> str:
    if both:
        return (
            f"{first} and {second} are interchangeable: the metric loses {_number(losses[0])} without the first, "
            f"{_number(losses[1])} without the second, and {_number(together)} without both. One of them is enough."
        )
    return (
        f"{second}, which is out, can stand for {first}: with it instead the metric changes by {_number(difference)}, "
        f"without either it loses {_number(together)}."
    )


def _number(estimate: tuple[float, float]) -> str:
    value, error = estimate
    return f"{value:+.4f} (standard error {error:.4f})"
