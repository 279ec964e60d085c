"""Where nothing is to be gained: how far the aggregator falls behind its best member.

One member knows nearly all that any member knows, the best possible accuracy is about 0.47, and there are 5,500 pairs
to learn from and 9,000 fresh ones (`exercises.one_knows_all`). A margin is a metric of the aggregator on the fresh
pairs less that of (a) the member that is best at this metric on the fresh pairs, which nobody can know beforehand, and
(b) "best before": the member that is best at macro F1 on the pairs to learn from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.aggregation.exercises import ORDINAL_PAIRS, one_knows_all
from benchmarks.aggregation.peers import before, best_member, each_member, ours
from benchmarks.harness import Figure, figure, say
from esci_tournament.tasks.ensemble.counts import METRICS

WORLDS = 200
MEAN, WORST = -0.5, -1.5  # points
AGAINST = ("best on fresh pairs", "best before")
PREVIOUS = "previous release"


@dataclass(frozen=True)
class Outcome:
    """What happened in one world, in shares of 1.

    Attributes:
        ours, previous: float64 (2, 3), margins to the members (a) and (b), of accuracy, macro F1, weighted F1.
        best: float64 (3,), metrics of the member (b).
        ceiling: the best possible accuracy.
        alone: whether the aggregator answers as one member does by itself.
    """

    ours: np.ndarray
    previous: np.ndarray
    best: np.ndarray
    ceiling: float
    alone: bool


def measure(quick: bool, seed: int) -> Iterator[tuple[str, list[Figure]]]:
    """Yield a title and the figures over all worlds."""
    first = seed * 1_000_000 + 4000
    worlds, pairs = (1, 1_000) if quick else (WORLDS, ORDINAL_PAIRS)
    yield f"{pairs:,} pairs, nothing to gain", summarise(run(range(first, first + worlds), pairs))


def run(seeds: Iterable[int], pairs: int = ORDINAL_PAIRS) -> list[Outcome]:
    """Return the outcome of each world."""
    seeds, outcomes = list(seeds), list[Outcome]()
    for number, seed in enumerate(seeds, 1):
        outcomes.append(play(seed, pairs))
        if number % 10 == 0 or number == len(seeds):
            margins = 100 * np.stack([one.ours for one in outcomes])
            say(f"{number} of {len(seeds)} worlds without a gain: {_told(margins)}")
    return outcomes


def _told(margins: np.ndarray) -> str:
    worst = margins[:, 0].min(axis=1)
    return f"mean margins {margins[:, 0].mean(axis=0).round(2).tolist()} points, worst {worst.min():.2f}"


def play(seed: int, pairs: int = ORDINAL_PAIRS) -> Outcome:
    """Return what happens in the world of this seed."""
    world = one_knows_all(seed, pairs)
    truth = world.fresh_labels
    members = np.stack([one.figures(truth)[:3] for one in each_member(world)])
    known = best_member(world).figures(truth)[:3]
    found, targets = ours(world), np.stack([members.max(axis=0), known])
    margins = [answer.figures(truth)[:3] - targets for answer in (found, before(world))]
    return Outcome(margins[0], margins[1], known, float(str(world.facts["ceiling"])), found.alone)


def summarise(outcomes: list[Outcome]) -> list[Figure]:
    """Return the figures over all worlds."""
    own, previous = (100 * np.stack([getattr(one, name) for one in outcomes]) for name in ("ours", "previous"))
    best = np.mean([one.best for one in outcomes], axis=0)
    figures = [
        figure("worlds", len(outcomes), "worlds", f">= {WORLDS}"),
        figure("best possible accuracy", np.mean([one.ceiling for one in outcomes]), ""),
        *(figure(f"{name} of the best member", value, "") for name, value in zip(METRICS, best, strict=True)),
        figure("one member alone", np.mean([one.alone for one in outcomes]), "share"),
    ]
    for row, against in enumerate(AGAINST):
        for place, name in enumerate(METRICS):
            values, theirs = own[:, row, place], previous[:, row, place]
            figures += [
                figure(f"{name}, margin to the {against}: mean", values.mean(), "points", f">= {MEAN}", PREVIOUS,
                       theirs.mean()),
                figure(f"{name}, margin to the {against}: worst", values.min(), "points", f">= {WORST}", PREVIOUS,
                       theirs.min()),
            ]  # fmt: skip
    return figures
