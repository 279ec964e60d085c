"""Time to compute member contributions, compared with shap.TreeExplainer on the same forest and rows, in one run.

100,000 pairs, 6 members of 4 columns, 800 trees (200 rounds of 4 classes, 25 leaves as in the paper), 2 threads each.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace

import lightgbm
import numpy as np
import shap

from benchmarks.harness import Figure, arguments, figure, median_seconds, report, say
from benchmarks.worlds import World, make_world
from esci_tournament.registry.labels import CLASSES
from esci_tournament.tasks.ensemble.aggregate import Aggregator, AggregatorParameters, flatten
from esci_tournament.tasks.ensemble.attribution import attribute, tabulate
from esci_tournament.tasks.ensemble.fitting import Choice, fit_aggregator
from esci_tournament.tasks.ensemble.worth import measure_worth

THREADS = 2
PARAMETERS = AggregatorParameters(leaves=25, depth=8, leaf_rows=20, leaf_hessian=1.0, threads=THREADS)


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and return 0 when every target is met, else 1; a quick run only shows that it runs."""
    options = arguments("attribution", __doc__, argv)
    rows, rounds = (5_000, 50) if options.quick else (100_000, 200)
    say(f"making a world of {rows:,} pairs and fitting {4 * rounds} trees")
    world = make_world(
        options.seed + 1, rows=rows, members=6, kinds=("plain", "weak", "duplicate", "useless", "plain", "weak")
    )
    parts = world.columns, world.labels, world.groups, world.members
    # The trees alone, which is what the peer reads
    aggregator = replace(fit_aggregator(*parts, PARAMETERS, Choice(rounds)), pool=None)
    figures = measure(world, aggregator, runs=3)
    report("attribution", figures, options.json)
    return 0 if options.quick or all(each.met is not False for each in figures) else 1


def measure(world: World, aggregator: Aggregator, runs: int) -> list[Figure]:
    """Return the figures of the full attribution and of the settled ranking."""
    features = flatten(world.columns, world.members)
    locales = np.full(len(features), "us")
    say("compiling (once a machine, kept on disk)")
    start = time.perf_counter()
    attribute(aggregator, world.columns[:2000], THREADS)
    compiling = time.perf_counter() - start
    say(f"shap.TreeExplainer on {len(features):,} pairs")
    peer_values = None

    def peer() -> None:
        nonlocal peer_values
        peer_values = tree_explainer(aggregator.booster, features)

    before = time.process_time()
    peer_seconds = median_seconds(peer, 1)
    peer_processor = time.process_time() - before
    say("our attribution of the same pairs")
    before = time.process_time()
    ours = median_seconds(lambda: attribute(aggregator, world.columns, THREADS), runs)
    processor = (time.process_time() - before) / runs
    tables = median_seconds(lambda: tabulate(aggregator), runs)
    values, _ = attribute(aggregator, world.columns, THREADS)
    theirs = peer_values.reshape(len(features), len(world.members), CLASSES, CLASSES).sum(axis=2).transpose(0, 2, 1)
    gap = float(np.abs(values - theirs).max() / np.abs(theirs).max())
    peer_order = ranking(np.abs(theirs).sum(axis=(0, 1)), world.members)
    say("settled ranking")

    def settle() -> object:
        return measure_worth(aggregator, world.columns, world.groups, locales, threads=THREADS, until_settled=True)

    settled_seconds = median_seconds(settle, runs)
    worth = settle()
    return [
        figure("pairs", len(features), "pairs"),
        figure("trees", aggregator.booster.num_trees(), "trees"),
        figure("all pairs", ours, "s", "", "shap.TreeExplainer", peer_seconds),
        figure("all pairs, processor time", processor, "s", "", "shap.TreeExplainer", peer_processor),
        figure("of which tables", tables, "s"),
        figure("speed-up, all pairs", peer_seconds / ours, "times", ">= 5"),
        figure("largest gap, share of the largest value", gap, "share", "<= 1e-6"),
        figure("settled ranking", settled_seconds, "s", "", "shap.TreeExplainer, all pairs", peer_seconds),
        figure("pairs drawn until settled", worth.rows, "pairs", "", "all", len(features)),
        figure("speed-up, settled ranking", peer_seconds / settled_seconds, "times", ">= 30"),
        figure("places in the ranking that differ", places_apart(worth.ranking, peer_order), "places", "<= 0"),
        figure("first call, compiling or reading the compiled code", compiling, "s"),
    ]


def tree_explainer(booster: lightgbm.Booster, features: np.ndarray) -> np.ndarray:
    """Return shap's values, float64 (n, columns, classes); LightGBM computes them with as many threads as we use."""
    booster.params["num_threads"] = THREADS
    return np.asarray(shap.TreeExplainer(booster).shap_values(features))


def ranking(totals: np.ndarray, members: tuple[str, ...]) -> tuple[str, ...]:
    """Return the members by falling total."""
    return tuple(members[position] for position in np.argsort(-totals, kind="stable"))


def places_apart(first: tuple[str, ...], second: tuple[str, ...]) -> int:
    """Return the number of places in which two rankings differ."""
    return sum(a != b for a, b in zip(first, second, strict=True))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))
    sys.exit(main())
