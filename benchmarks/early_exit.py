"""Calls and time saved by early exit, and whether the changed labels stay within the bound, on generated worlds.

Each world has 8 members (near-duplicates, weak but different ones, useless ones, plain ones) of uneven cost. The rule
is set on 6,000 pairs of 300 queries, with 95 % confidence, and evaluated on 20,000 pairs of 1,000 other queries. A
world is a violation if more labels differ there than the risk allows; one in twenty may be. The baseline exits as soon
as the most probable class has a fixed confidence of 0.9.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np

from benchmarks.harness import Figure, arguments, figure, report, say
from benchmarks.worlds import World, make_world
from esci_tournament.tasks.ensemble.aggregate import AggregatorParameters, softmax
from esci_tournament.tasks.ensemble.counts import confusion, metric_of
from esci_tournament.tasks.ensemble.early_exit import EarlyExit
from esci_tournament.tasks.ensemble.exit_calibration import calibrate_exit
from esci_tournament.tasks.ensemble.fitting import Choice, cross_validate, fit_aggregator
from esci_tournament.tasks.ensemble.worth import utilities

MODELS, PAIRS, FRESH = 8, 6000, 20_000
RISKS = (0.001, 0.005, 0.01)
NAIVE = 0.9
# Boosting in long steps, so that some 1,600 fits with their folds take minutes; the rule does not depend on it
PARAMETERS = AggregatorParameters(learning_rate=0.3, maximum_rounds=40, patience=3, leaves=8, depth=3, threads=1)


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and return 0 when every target is met, else 1; a quick run only shows that it runs."""
    options = arguments("early_exit", __doc__, argv)
    worlds = 2 if options.quick else 100
    results = run(range(options.seed * 1_000_000 + 7000, options.seed * 1_000_000 + 7000 + worlds))
    figures = summarise(results)
    report("early_exit", figures, options.json)
    return 0 if options.quick or all(each.met is not False for each in figures) else 1


def run(seeds: Iterable[int]) -> list[dict[str, np.ndarray]]:
    """Return what each way of leaving does in each world, two processes at a time."""
    seeds, results = list(seeds), []
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for number, result in enumerate(pool.map(play, seeds), 1):
            results.append(result)
            if number % 10 == 0 or number == len(seeds):
                told = np.mean([one["0.005"] for one in results], axis=0)
                say(f"{number} of {len(seeds)} worlds; at 0.5 %: {told[1]:.3f} of calls saved, {told[0]:.5f} differ")
    return results


def play(seed: int) -> dict[str, np.ndarray]:
    """Return name -> (share of labels that differ, calls saved, milliseconds saved, macro F1 lost) on fresh queries."""
    world = make_world(seed, rows=PAIRS + FRESH, members=MODELS)
    keys = np.random.default_rng([seed, 3]).permutation(np.unique(world.groups))
    blend = np.isin(world.groups, keys[: len(keys) * PAIRS // (PAIRS + FRESH)])
    order = worth_a_millisecond(world, blend)
    labels, groups = world.labels[blend], world.groups[blend]
    held_out, fresh = [], []
    for count in range(1, MODELS + 1):
        own = np.ascontiguousarray(world.columns[:, order[:count]])
        found = cross_validate(own[blend], labels, groups, PARAMETERS)
        names = [world.members[place] for place in order[:count]]
        fitted = fit_aggregator(own[blend], labels, groups, names, PARAMETERS, found.choice)
        held_out.append(found.decision_scores)
        fresh.append(fitted.decision_scores(fitted.predict_proba(own[~blend])))
    milliseconds = world.milliseconds[order]
    members = [world.members[place] for place in order]
    rule = calibrate_exit(members, held_out, labels, groups, milliseconds, RISKS[1], PARAMETERS.folds)
    truth = world.labels[~blend]
    result = {f"{risk:g}": outcome(leaves(rule.at(risk), fresh), fresh, truth, milliseconds) for risk in (0.0, *RISKS)}
    sure = np.stack([softmax(one).max(axis=1) >= NAIVE for one in fresh[:-1]] + [np.ones(len(truth), dtype=bool)])
    return result | {"naive": outcome(sure, fresh, truth, milliseconds)}


def worth_a_millisecond(world: World, blend: np.ndarray) -> np.ndarray:
    """Return the members by falling utility (SHAP, in the ensemble of all) a millisecond."""
    labels, groups = world.labels[blend], world.groups[blend]
    columns = np.ascontiguousarray(world.columns[blend])
    fitted = fit_aggregator(columns, labels, groups, world.members, PARAMETERS, Choice(rounds=20))
    worth = utilities(fitted, columns[:2000], threads=1)
    utility = np.array([worth[member] for member in world.members])
    return np.argsort(-utility / world.milliseconds, kind="stable")


def leaves(rule: EarlyExit, fresh: list[np.ndarray]) -> np.ndarray:
    """Return at which stages each pair may leave, bool (k, n)."""
    return np.stack([rule.sure(stage, scores) for stage, scores in enumerate(fresh, 1)])


def outcome(sure: np.ndarray, fresh: list[np.ndarray], truth: np.ndarray, milliseconds: np.ndarray) -> np.ndarray:
    """Return the share of labels that differ from the whole ensemble's, and what is saved and lost, float64 (4,)."""
    labels = np.stack([one.argmax(axis=1) for one in fresh])
    stage = sure.argmax(axis=0)
    label, whole = labels[stage, np.arange(len(truth))], labels[-1]
    spent = np.cumsum(milliseconds)
    lost = metric_of("macro_f1", confusion(truth, whole)) - metric_of("macro_f1", confusion(truth, label))
    calls, time = 1 - (stage + 1).mean() / len(fresh), 1 - (spent[stage] / spent[-1]).mean()
    return np.array([(label != whole).mean(), calls, time, lost])


def summarise(results: list[dict[str, np.ndarray]]) -> list[Figure]:
    """Return the figures over all worlds."""
    table = {name: np.stack([one[name] for one in results]) for name in results[0]}
    naive = table["naive"]
    figures = [figure("worlds", len(results), "worlds", ">= 100")]
    for risk in (0.0, *RISKS):
        here, name = table[f"{risk:g}"], f"at {100 * risk:g} %"
        beside = f"confidence {NAIVE:g}"
        figures += [
            figure(
                f"{name}: worlds where more labels differ", (here[:, 0] > risk).mean(), "share",
                "<= 0" if not risk else "<= 0.05", beside, (naive[:, 0] > risk).mean(),
            ),
            figure(f"{name}: labels that differ, at most", here[:, 0].max(), "share", "", beside, naive[:, 0].max()),
            figure(f"{name}: member calls saved", here[:, 1].mean(), "share", "", beside, naive[:, 1].mean()),
            figure(f"{name}: milliseconds saved", here[:, 2].mean(), "share", "", beside, naive[:, 2].mean()),
            figure(f"{name}: macro F1 lost", here[:, 3].mean(), "macro F1", "", beside, naive[:, 3].mean()),
        ]  # fmt: skip
    return figures


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.exit(main())
