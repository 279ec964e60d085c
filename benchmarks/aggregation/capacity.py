"""Whether larger trees are worth it with more pairs: the aggregator's own compared with larger ones at 200,000 pairs.

Before the aggregator had a linear part, trees of 31 leaves were better than those of 8 from some size on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from benchmarks.aggregation.exercises import Exercise, correlated, of_worlds
from benchmarks.aggregation.peers import FIGURES, PARAMETERS, Answer
from benchmarks.harness import Figure, figure
from esci_tournament.tasks.ensemble.fitting import fit_aggregator

PAIRS, FRESH, WORLDS = 200_000, 40_000, 3
LARGER = {
    "31 leaves, depth 6": replace(PARAMETERS, leaves=31, depth=6),
    "31 leaves of 100 pairs, depth 8": replace(PARAMETERS, leaves=31, depth=8, leaf_rows=100),
    "16 leaves, 600 rounds": replace(PARAMETERS, leaves=16, depth=6, maximum_rounds=600),
}
KINDS = {"correlated errors": correlated, "mixed members": of_worlds}


def measure(quick: bool, seed: int) -> Iterator[tuple[str, list[Figure]]]:
    """Yield the kind of worlds, and the figures of the aggregator beside those of larger trees."""
    pairs, fresh, worlds = (2_000, 2_000, 1) if quick else (PAIRS, FRESH, WORLDS)
    first = seed * 1_000_000 + 9000
    for name, kind in KINDS.items():
        methods = (PARAMETERS, *LARGER.values())
        tables = [
            [play(world, parameters) for parameters in methods]
            for world in (kind(one, pairs, fresh) for one in range(first, first + worlds))
        ]
        yield f"{pairs:,} pairs, {name}", summarise(np.array(tables), worlds)


def play(world: Exercise, parameters: object) -> list[float]:
    """Return `FIGURES`, rounds of trees and processor seconds of one way to fit."""
    began = time.process_time()
    fitted = fit_aggregator(world.columns, world.labels, world.groups, world.members, parameters)  # type: ignore[arg-type]
    seconds = time.process_time() - began
    answer = Answer(fitted.predict(world.fresh_columns), fitted.predict_proba(world.fresh_columns))
    return [*answer.figures(world.fresh_labels), fitted.rounds, seconds]


def summarise(table: np.ndarray, worlds: int) -> list[Figure]:
    """Return the figures of worlds, float64 (worlds, 1 + larger, figures)."""
    means = table.mean(axis=0)
    figures = [figure("worlds", worlds, "worlds")]
    for place, name in enumerate((*FIGURES, "rounds of trees", "processor seconds")):
        for method, row in zip(LARGER, means[1:], strict=True):
            figures.append(figure(name, means[0, place], "", "", method, row[place]))
    losses = table[:, :, FIGURES.index("log_loss")]
    worst = (losses[:, 0] - losses[:, 1:].min(axis=1)).max()
    return [*figures, figure("log loss more than the best of the larger ones, worst world", worst, "nats", "<= 0.0005")]
