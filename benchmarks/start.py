"""Initial score of boosting: a log-linear pool of the members against none, on new queries of generated worlds.

For each number of pairs the aggregator is fitted twice on the same pairs of each world, with rare classes weighted as
in a tournament (macro F1), and both are evaluated on 10,000 pairs of other queries.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np

from benchmarks.harness import Figure, arguments, figure, report, say
from benchmarks.worlds import make_world
from esci_tournament.tasks.ensemble.aggregate import AggregatorParameters
from esci_tournament.tasks.ensemble.balance import choose_balance
from esci_tournament.tasks.ensemble.counts import METRICS, confusion, metrics_of
from esci_tournament.tasks.ensemble.fitting import fit_aggregator
from esci_tournament.tasks.ensemble.start import choose_start

FRESH = 10_000


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and return 0 when every target is met, else 1; a quick run only shows that it runs."""
    options = arguments("start", __doc__, argv)
    sizes, worlds = ((600,), 3) if options.quick else ((600, 2_000, 6_000, 20_000), 12)
    figures: list[Figure] = []
    for pairs in sizes:
        say(f"{worlds} worlds of {pairs:,} pairs")
        figures += measure(pairs, [options.seed + 100 + world for world in range(worlds)])
    report("start", figures, options.json)
    return 0 if options.quick or all(each.met is not False for each in figures) else 1


def measure(pairs: int, seeds: list[int]) -> list[Figure]:
    """Return the figures of some worlds with so many pairs to learn from."""
    found = np.array([one_world(pairs, seed) for seed in seeds])
    chosen, nothing, pool = found[:, 0].mean(), found[:, 1:4].mean(axis=0), found[:, 4:].mean(axis=0)
    # Few pairs are what it is for; where there are many it must do no harm
    targets = {"macro_f1": ">= 0.01"} if pairs <= 600 else dict.fromkeys(METRICS, ">= -0.005")
    rows = [figure(f"{pairs:,} pairs: worlds in which the pool is chosen", chosen, "share")]
    for place, name in enumerate(METRICS):
        change = pool[place] - nothing[place]
        rows.append(figure(f"{pairs:,} pairs: {name}", pool[place], "", "", "nothing", nothing[place]))
        rows.append(figure(f"{pairs:,} pairs: change of {name}", change, "", targets.get(name, "")))
    return rows


def one_world(pairs: int, seed: int) -> list[float]:
    """Return whether the pool is chosen, and the metrics on fresh queries with nothing and with the pool."""
    world = make_world(seed, rows=pairs + FRESH, members=6)
    queries = np.unique(world.groups)
    known = np.isin(world.groups, queries[: round(len(queries) * pairs / (pairs + FRESH))])
    parts = world.columns[known], world.labels[known], world.groups[known]
    parameters = AggregatorParameters(threads=1)
    values = [float(choose_start(*parts, parameters).chosen == "pool")]
    for start in ("nothing", "pool"):
        own = replace(parameters, start=start)
        own = replace(own, balance=choose_balance(*parts, own, "macro_f1", 0.02).power)
        fitted = fit_aggregator(*parts, world.members, own)
        values += metrics_of(confusion(world.labels[~known], fitted.predict(world.columns[~known]))).values()
    return values


if __name__ == "__main__":
    sys.exit(main())
