"""Early exit: whether the changed labels stay within the risk, and the calls and time that it saves.

1. Families: generated margins and changes of label, independent, alike within a query, of whole queries and of giant
   ones, where the true share is known. A world is a violation if that is above the risk; one in twenty may be.
2. Worlds: each has 8 members (near-duplicates, weak but different ones, useless ones, plain ones) of uneven cost, and
   fitted aggregators. The rule is set on 15,000 pairs of 1,500 queries and evaluated on as many of other queries.

Beside the rule stands that of previous releases, and in the worlds an exit as soon as the most probable class has a
fixed confidence of 0.9.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial

import numpy as np

from benchmarks.exits import families, previous
from benchmarks.harness import Figure, arguments, figure, in_processes, report
from benchmarks.worlds import World, make_world
from esci_tournament.tasks.ensemble.aggregate import AggregatorParameters, softmax
from esci_tournament.tasks.ensemble.attribution import utilities
from esci_tournament.tasks.ensemble.counts import confusion, metric_of
from esci_tournament.tasks.ensemble.early_exit import EarlyExit, Level
from esci_tournament.tasks.ensemble.exit_calibration import calibrate_exit
from esci_tournament.tasks.ensemble.fitting import Choice, cross_validate, fit_aggregator

PARTS = ("families", "worlds")
MODELS, QUERIES, PAIRS_A_QUERY = 8, 1500, 10  # as many queries again are fresh
RISKS = (0.005, 0.01, 0.02)
NAIVE = 0.9
# Boosting in long steps, so that some 2,000 fits with their folds take minutes; the rule does not depend on it
PARAMETERS = AggregatorParameters(learning_rate=0.3, maximum_rounds=25, patience=3, leaves=8, depth=3, threads=1)


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and return 0 when every target is met, else 1; a quick run only shows that it runs."""
    options = arguments("early_exit", __doc__, argv, PARTS)
    worlds = range(2 if options.quick else 30)
    parts: dict[str, Callable[[], list[Figure]]] = {
        "families": partial(families.figures, options.seed, options.quick, in_processes),
        "worlds": lambda: summarise(in_processes(partial(play, options.seed), worlds, "fitted worlds")),
    }
    figures = [one for part, measure in parts.items() if part in options.only for one in measure()]
    report("early_exit", figures, options.json)
    return 0 if options.quick or all(each.met is not False for each in figures) else 1


def play(seed: int, number: int) -> dict[str, np.ndarray]:
    """Return name -> (share of labels that differ, calls saved, milliseconds saved, macro F1 lost) on fresh queries."""
    key = seed * 1_000_000 + 7000 + number
    world = make_world(key, rows=2 * QUERIES * PAIRS_A_QUERY, members=MODELS, pairs_a_query=PAIRS_A_QUERY)
    keys = np.random.default_rng([key, 3]).permutation(np.unique(world.groups))
    blend = np.isin(world.groups, keys[: len(keys) // 2])
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
    milliseconds, truth = world.milliseconds[order], world.labels[~blend]
    members = tuple(world.members[place] for place in order)
    rule = calibrate_exit(members, held_out, labels, groups, milliseconds, RISKS[0])
    result = {}
    for risk in (0.0, *RISKS):
        needed, bound = previous.thresholds(held_out, groups, milliseconds, risk)
        before = EarlyExit(members, Level(risk, tuple(None if np.isinf(one) else float(one) for one in needed)))
        for name, one in ((f"{risk:g}", rule.at(risk)), (f"{risk:g} before", before)):
            result[name] = outcome(leaves(one, fresh), fresh, truth, milliseconds)
        result[f"{risk:g} told"] = np.array([rule.at(risk).level.bound, bound, rule.at(risk).on, before.on])
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
    figures = [figure("worlds", len(results), "worlds", ">= 30")]
    for risk in (0.0, *RISKS):
        here, before, told = table[f"{risk:g}"], table[f"{risk:g} before"], table[f"{risk:g} told"]
        name, beside = f"at {100 * risk:g} %", families.PEER
        figures += [
            figure(
                f"{name}: worlds where more labels differ", (here[:, 0] > risk).mean(), "share",
                "<= 0.05" if risk else "<= 0", beside, (before[:, 0] > risk).mean(),
            ),
            figure(
                f"{name}: worlds where more differ than the bound", (here[:, 0] > told[:, 0]).mean(),
                "share", "", beside, (before[:, 0] > told[:, 1]).mean(),
            ),
            figure(f"{name}: labels that differ, at most", here[:, 0].max(), "share", "", beside, before[:, 0].max()),
            figure(f"{name}: early exit on", told[:, 2].mean(), "share", "", beside, told[:, 3].mean()),
            figure(f"{name}: member calls saved", here[:, 1].mean(), "share", "", beside, before[:, 1].mean()),
            figure(f"{name}: milliseconds saved", here[:, 2].mean(), "share", "", beside, before[:, 2].mean()),
            figure(f"{name}: macro F1 lost", here[:, 3].mean(), "macro F1", "", beside, before[:, 3].mean()),
        ]  # fmt: skip
    naive, name = table["naive"], f"at a confidence of {NAIVE:g}"
    for risk in RISKS:
        figures.append(figure(f"{name}: worlds above {100 * risk:g} %", (naive[:, 0] > risk).mean(), "share"))
    units = ("share", "share", "share", "macro F1")
    for place, what in enumerate(("labels that differ", "member calls saved", "milliseconds saved", "macro F1 lost")):
        figures.append(figure(f"{name}: {what}", naive[:, place].mean(), units[place]))
    return figures


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    sys.exit(main())
