"""Where members complement each other: how far the aggregator is ahead of its peers.

All are fitted on the same pairs of each world and evaluated on 10,000 pairs of other queries (`exercises.py`). A margin
is the macro F1 of the aggregator less that of a peer in the same world. Beside the margins, `value` has the least of
them, and the share of the worlds in which the aggregator is ahead of all peers. "To the best method" is each method's
macro F1 less that of the method that is best in this world, which nobody can know beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.aggregation.exercises import SAMPLE_PAIRS, Exercise, correlated, like_the_sample, of_worlds
from benchmarks.aggregation.peers import BEST, FIGURES, PEERS, ours
from benchmarks.harness import Figure, figure, say
from esci_tournament.tasks.ensemble.counts import METRICS

FRESH = 10_000
MACRO = FIGURES.index("macro_f1")
BEHIND, SHARE = -1.0, 0.99  # points of macro F1 behind the best of the peers; share of worlds ahead of the best member

Kind = Callable[[int, int, int], Exercise]


@dataclass(frozen=True)
class Size:
    """Worlds of one size: pairs to learn from, kinds, and worlds of each kind."""

    pairs: int
    kinds: tuple[Kind, ...]
    worlds: int


SIZES = (
    Size(500, (correlated, of_worlds), 100),
    Size(2_500, (correlated, of_worlds), 50),
    Size(SAMPLE_PAIRS, (like_the_sample,), 100),
    Size(20_000, (correlated, of_worlds), 6),
)
QUICK = (Size(500, (like_the_sample,), 1),)
NAMES = {correlated: "correlated errors", of_worlds: "mixed members", like_the_sample: "as hard as ESCI's sample"}


@dataclass(frozen=True)
class Outcome:
    """What happened in one world: float64 (1 + peers, 4), `FIGURES` of the aggregator and its peers."""

    values: np.ndarray
    alone: bool


def measure(quick: bool, seed: int) -> Iterator[tuple[str, list[Figure]]]:
    """Yield size and kind, and their figures."""
    first = seed * 1_000_000 + 5000
    for size in QUICK if quick else SIZES:
        for kind in size.kinds:
            outcomes = run(kind, size.pairs, range(first, first + size.worlds))
            yield f"{size.pairs:,} pairs, {NAMES[kind]}", summarise(outcomes)


def run(kind: Kind, pairs: int, seeds: Iterable[int]) -> list[Outcome]:
    """Return the outcome of each world."""
    seeds, outcomes = list(seeds), list[Outcome]()
    for number, seed in enumerate(seeds, 1):
        outcomes.append(play(kind(seed, pairs, FRESH)))
        if number % 10 == 0 or number == len(seeds):
            values = np.mean([one.values[:, MACRO] for one in outcomes], axis=0)
            told = dict(zip(("ours", *PEERS), values.round(4).tolist(), strict=True))
            say(f"{number} of {len(seeds)} worlds of {pairs:,} pairs, {NAMES[kind]}: macro F1 {told}")
    return outcomes


def play(world: Exercise) -> Outcome:
    """Return what the aggregator and its peers do in a world."""
    found = ours(world)
    answers = [found, *(peer(world) for peer in PEERS.values())]
    return Outcome(np.stack([one.figures(world.fresh_labels) for one in answers]), found.alone)


def summarise(outcomes: list[Outcome]) -> list[Figure]:
    """Return the figures of worlds of one size and kind."""
    table = np.stack([one.values for one in outcomes])  # world, method, figure
    own, theirs, peers = table[:, 0], table[:, 1:], list(PEERS)

    def beside(name: str, value: float, values: np.ndarray, unit: str = "", target: str = "") -> list[Figure]:
        return [figure(name, value, unit, target, *pair) for pair in zip(peers, values, strict=True)]

    figures = [figure("worlds", len(outcomes), "worlds")]
    for place, name in enumerate(FIGURES):
        figures += beside(name, own[:, place].mean(), theirs[:, :, place].mean(axis=0))
    margins = 100 * (own[:, None, MACRO] - theirs[:, :, MACRO])
    mean, worst, ahead = margins.mean(axis=0), margins.min(axis=0), (margins > 0).mean(axis=0)
    behind = 100 * (table[:, :, MACRO] - table[:, :, MACRO].max(axis=1, keepdims=True))  # the best method of each world
    overall = table[:, :, : len(METRICS)]
    best = (overall > overall[:, [1 + peers.index(BEST)]]).all(axis=2).mean(axis=0)
    return [
        *figures,
        *beside("macro_f1, our margin: mean", mean.min(), mean, "points", ">= 0"),
        *beside("macro_f1, our margin: worst", worst.min(), worst, "points", f">= {BEHIND}"),
        *beside("macro_f1, we are ahead", (margins > 0).all(axis=1).mean(), ahead, "share"),
        *beside("macro_f1, to the best method: mean", behind[:, 0].mean(), behind[:, 1:].mean(axis=0), "points"),
        *beside("macro_f1, to the best method: worst", behind[:, 0].min(), behind[:, 1:].min(axis=0), "points"),
        *beside("all three ahead of the best member", best[0], best[1:], "share", f">= {SHARE}"),
        figure("one member alone", np.mean([one.alone for one in outcomes]), "share"),
    ]
