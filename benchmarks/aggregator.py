"""Time of the LightGBM stage for a page of 40 pairs: our tree traversal compared with LightGBM's own prediction.

7 and 12 members, 1,200 trees (300 rounds, the most that the aggregator may have), one thread.
"""

from __future__ import annotations

import os
import sys

import numpy as np

from benchmarks.harness import Figure, arguments, figure, median_seconds, report
from benchmarks.worlds import make_world
from esci_tournament.tasks.ensemble.aggregate import AggregatorParameters, flatten
from esci_tournament.tasks.ensemble.fitting import fit_aggregator

PAGE, MEMBERS = 40, (7, 12)


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and return 0 when every target is met, else 1."""
    options = arguments("aggregator", __doc__, argv)
    rounds, runs = (60, 200) if options.quick else (300, 1000)
    figures: list[Figure] = []
    for members in MEMBERS:
        figures += measure(members, rounds, runs, options.seed)
    report("aggregator", figures, options.json)
    return 0 if all(each.met is not False for each in figures) else 1


def measure(members: int, rounds: int, runs: int, seed: int) -> list[Figure]:
    """Return the figures of an ensemble of some members."""
    world = make_world(seed, rows=3000, members=members)
    parameters = AggregatorParameters(maximum_rounds=rounds, threads=1)
    aggregator = fit_aggregator(world.columns, world.labels, world.groups, world.members, parameters, rounds)
    page = np.ascontiguousarray(world.columns[:PAGE])
    features = flatten(page, world.members)

    def theirs() -> np.ndarray:
        return np.asarray(aggregator.booster.predict(features, raw_score=True, num_threads=1))

    gap = np.abs(aggregator.raw_scores(page) - theirs()).max()
    halves = [(median_seconds(lambda: aggregator.predict_proba(page), runs), median_seconds(theirs, runs))]
    halves.append((median_seconds(lambda: aggregator.predict_proba(page), runs), median_seconds(theirs, runs)))
    ours, peer = np.mean(halves, axis=0) * 1e3
    name = f"{members} members, {4 * rounds:,} trees"
    return [
        figure(f"{name}: page of {PAGE}", ours, "ms", "<= 1", "Booster.predict", peer),
        figure(f"{name}: gap of the scores", gap, "of a raw score", "<= 0"),
    ]


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.exit(main())
