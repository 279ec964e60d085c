"""Time of the aggregator for a page of 40 pairs: our tree traversal compared with LightGBM's own prediction.

7 and 12 members, 1,200 trees (300 rounds, the most that the aggregator may have), one thread. Ours includes the linear
part and the softmax, LightGBM's does not.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.harness import Figure, figure, median_seconds
from benchmarks.worlds import make_world
from esci_tournament.tasks.ensemble.aggregate import AggregatorParameters, flatten
from esci_tournament.tasks.ensemble.fitting import Choice, fit_aggregator

PAGE, MEMBERS = 40, (7, 12)


def measure(quick: bool, seed: int) -> Iterator[tuple[str, list[Figure]]]:
    """Yield a title and the figures of all sizes."""
    rounds, runs = (60, 200) if quick else (300, 1000)
    yield "a page of 40 pairs", [each for members in MEMBERS for each in of_members(members, rounds, runs, seed)]


def of_members(members: int, rounds: int, runs: int, seed: int) -> list[Figure]:
    """Return the figures of an ensemble of some members."""
    world = make_world(seed, rows=3000, members=members)
    parameters = AggregatorParameters(maximum_rounds=rounds, threads=1)
    choice = Choice(rounds=rounds)
    aggregator = fit_aggregator(world.columns, world.labels, world.groups, world.members, parameters, choice)
    page = np.ascontiguousarray(world.columns[:PAGE])
    features = flatten(page, world.members)

    def theirs() -> np.ndarray:
        return np.asarray(aggregator.booster.predict(features, raw_score=True, num_threads=1))

    linear = np.zeros(()) if aggregator.pool is None else aggregator.pool.raw_scores(page)
    gap = np.abs(aggregator.raw_scores(page) - (theirs() + linear)).max()
    halves = [(median_seconds(lambda: aggregator.predict_proba(page), runs), median_seconds(theirs, runs))]
    halves.append((median_seconds(lambda: aggregator.predict_proba(page), runs), median_seconds(theirs, runs)))
    ours, peer = np.mean(halves, axis=0) * 1e3
    name = f"{members} members, {4 * rounds:,} trees"
    return [
        figure(f"{name}: page of {PAGE}", ours, "ms", "<= 1", "Booster.predict", peer),
        figure(f"{name}: gap of the scores", gap, "of a raw score", "<= 0"),
    ]
