"""What a verdict shows: how often its 95 % intervals hold the truth, and how far the gain of a winner is off.

The truth is exact: it follows from how often a model is right (`null_worlds.RIGHT`), whatever shares the errors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from benchmarks.harness import Figure, figure
from benchmarks.judging.null_worlds import FAMILIES, HOPELESS, PRIOR, RIGHT, Family, World
from esci_tournament.registry.labels import LABELS
from esci_tournament.tasks.ensemble.bootstrap import Difference, quantile, widened
from esci_tournament.tasks.ensemble.case import JudgeInput, JudgeSettings
from esci_tournament.tasks.ensemble.conditional import given_that_it_won
from esci_tournament.tasks.ensemble.counts import METRICS, confusion_by_query, influences, macro_f1, metric_of
from esci_tournament.tasks.ensemble.evidence import Evidence
from esci_tournament.tasks.ensemble.recurrence import RecurringPairs
from esci_tournament.tasks.ensemble.spending import look_at
from esci_tournament.tasks.ensemble.verdict import Check, MetricRow

WORLDS = {
    "independent errors": Family(),
    "query effects": FAMILIES["query effects"],
    "product effects": FAMILIES["product effects"],
    "query and product effects": FAMILIES["query and product effects"],
    "near-copies": Family(by_query=0.2, kept=(0.9, 0.99)),
}
SIZES = {30: 800, 60: 1000, 100: 1000, 300: 1000, 1000: 600, 3000: 300}  # queries: repeats
GAINS = (0.0, 0.03, 0.1)  # share of its errors that a challenger puts right, in turn
LOCALES = (20, 50, 100, 200)
FROM = 60  # queries from which on the coverage has a target
TARGET = ">= 0.935"
KINDS = ("metrics of a side", "differences of metrics", "F1 of a class", "differences of F1 of a class")
BESIDE = 300  # queries of the large locale beside the small one
PERCENTILES = (0.025, 0.975)
WINNERS = {0: 12_000, 1: 2500, 2: 800, 3: 500}  # true gain in standard errors: repeats
WON_ON = 300  # queries

Run = Callable[[Callable[[int], tuple], range, str], list[tuple]]


def figures(seed: int, quick: bool, run: Run) -> list[Figure]:
    """Return the coverage of intervals by world, size and kind, and of the gain of winners by how large it truly is.

    The peer of an interval is the bootstrap's percentiles, which releases before showed, and showed always. That of a
    winner's gain is the gain as measured.

    Args:
        seed: of all worlds.
        quick: fewer repeats, and no large sizes.
        run: maps a function over numbers, in processes.
    """
    sizes = [(name, queries, 0, times) for name in WORLDS for queries, times in SIZES.items()]
    sizes += [(name, BESIDE + small, small, 600) for name in list(WORLDS)[:2] for small in LOCALES]
    found, together = [], {}
    for name, queries, small, times in sizes:
        if quick and (queries > 60 if not small else small > 20):
            continue
        size = f"a locale of {small} queries" if small else f"{queries:,} queries"
        work = partial(shown, seed, WORLDS[name], queries, small)
        results = run(work, range(40 if quick else times), f"intervals: {name}, {size}")
        counts = np.array(results).sum(axis=0).reshape(4, 5)
        found += _coverage(f"{name}, {size}", counts, "")
        for whole in (size, name) if (small or queries) >= FROM else ():
            together[whole] = together.get(whole, 0) + counts
    for whole, counts in together.items():
        of = "all sizes from 60 queries on" if whole in WORLDS else "all worlds"
        found += _coverage(f"{whole}, {of}", counts, TARGET)
    if not quick:
        total = sum(together[name] for name in WORLDS)
        for kind, (_, printed, low, high, _) in zip(KINDS, total, strict=True):
            for side, missed in (("below", low), ("above", high)):
                found.append(figure(f"everything, {kind}: truth {side} the interval", missed / printed, "share"))
    return found + _winners(seed, quick, run)


def _coverage(what: str, counts: np.ndarray, target: str) -> list[Figure]:
    """Return the coverage in one kind of world; a rate on fewer than 100 intervals is left out."""
    return [
        figure(
            f"{what}: {kind} ({printed / asked:.0%} shown)", 1 - (low + high) / printed, "share", target,
            "percentiles, always", old / asked,
        )
        for kind, (asked, printed, low, high, old) in zip(KINDS, counts, strict=True)
        if printed >= 100
    ]  # fmt: skip


def shown(seed: int, family: Family, queries: int, small: int, number: int) -> tuple[int, ...]:
    """Return how many intervals were asked for, printed, above and below the truth, and how many percentiles held it.

    Args:
        seed: of all worlds.
        family: what errors share.
        queries: of the test split.
        small: queries of a small locale, whose intervals are counted; 0 counts those of the whole.
        number: of the repeat.
    """
    random = np.random.default_rng([seed, 11, queries, small, number, *(int(1e3 * one) for one in _key(family))])
    family = replace(family, gain=GAINS[number % len(GAINS)])
    world = World(random, family, queries)
    locale = np.where(np.arange(queries) < small, "jp", "us")
    evidence = _evidence(world, world.challenger(), locale, number, not small)
    truths = expected(family.gain), expected(0.0)
    counts = np.zeros((4, 5), int)
    for row in evidence.table():
        of_class = row.scope.startswith("class")
        if row.scope != ("jp" if small else "all") and not (of_class and not small):
            continue
        name = f"f1 {row.scope[-1]}" if of_class else row.metric
        place = evidence.places.index("jp") if small else None
        one, other = (_metric(name, truth) for truth in truths)
        counts[2 * of_class] += _held(evidence, name, place, one, row, "challenger")
        counts[2 * of_class + 1] += _held(evidence, name, place, one - other, row, "difference")
    return tuple(counts.reshape(-1).tolist())


def _held(
    evidence: Evidence, name: str, place: int | None, truth: float, row: MetricRow, kind: str
) -> tuple[int, int, int, int, int]:
    """Return 1 for asked; for printed, the truth below, above; and whether the percentiles of before hold the truth."""
    value, low, high = (getattr(row, f"{kind}{end}") for end in ("", "_low", "_high"))
    sides = (0, 1) if kind == "difference" else (0,)
    drawn = [evidence.metric(name, side, place)[1] for side in sides]
    recurring = evidence._recurring(name, place, *sides)[0]
    start, end = widened(value, drawn[0] - drawn[1] if len(drawn) > 1 else drawn[0], PERCENTILES, recurring)
    printed = low is not None
    return 1, printed, printed and truth < low, printed and truth > high, start <= truth <= end


def _evidence(world: World, said: np.ndarray, locale: np.ndarray, seed: int, products: bool) -> Evidence:
    groups = world.keys[world.query]
    ours, theirs = (confusion_by_query(world.labels, one, groups)[1] for one in (said, world.champion))
    recurring = None
    if products:  # of a small locale, no product recurs in the other
        recurring = RecurringPairs.among(
            world.product, groups, label=world.labels, challenger=said, champion=world.champion
        )
    case = JudgeInput(world.keys, locale, ours, theirs, recurring=recurring)
    settings = JudgeSettings(resamples=1000, threads=1, seed=seed)
    return Evidence(case.canonical(), sorted(set(locale.tolist())), settings)


def expected(gain: float) -> np.ndarray:
    """Return how often a model that puts right a share of its errors answers what, float64 (4, 4), true by answer."""
    wrong = (1 - np.eye(4)) * (1 - RIGHT)[:, None] / 3
    return PRIOR[:, None] * ((1 - gain) * (np.diag(RIGHT) + wrong) + gain * np.eye(4))


def _metric(name: str, counts: np.ndarray) -> float:
    if name in METRICS:
        return float(metric_of(name, counts))
    label = LABELS.index(name.removeprefix("f1 "))
    return float(2 * counts[label, label] / (counts[label].sum() + counts[:, label].sum()))


def _winners(seed: int, quick: bool, run: Run) -> list[Figure]:
    """Return how far the gain of winners is off, as measured and given that they won."""
    family = replace(FAMILIES["query effects"], kept=(0.8, 0.8))
    pilot = np.array(run(partial(won, seed, family, 2.0, True), range(40 if quick else 400), "errors of a gain"))
    error = float(pilot[:, 0].std(ddof=1))
    found = []
    for errors, repeats in WINNERS.items():
        share = _share(errors * error)
        true = _metric("macro_f1", expected(share)) - _metric("macro_f1", expected(0.0))
        times = 60 if quick else repeats
        work = partial(won, seed, replace(family, gain=share), float(errors), False)
        results = np.array(run(work, range(times), f"winners with a true gain of {errors} standard errors"))
        results = results[results[:, -1] > 0]
        if len(results) < (2 if quick else 50):
            continue
        measured, low, high, estimate, start, end, _ = results.T
        name = f"true gain of {errors} standard errors"
        found.append(figure(f"{name}: winners among {times:,} challengers", len(results), "challengers"))
        found.append(
            figure(
                f"{name}: median error of a winner's gain, given that it won", np.median(estimate - true) / error,
                "standard errors", "", "as measured", np.median(measured - true) / error,
            )
        )  # fmt: skip
        if errors:
            found.append(
                figure(
                    f"{name}: median of a winner's gain over the true one, given that it won",
                    np.median(estimate) / true, "times", "", "as measured", np.median(measured) / true,
                )
            )  # fmt: skip
        found.append(
            figure(
                f"{name}: covered, given that it won", ((start <= true) & (true <= end)).mean(), "share", TARGET,
                "as measured", ((low <= true) & (true <= high)).mean(),
            )
        )  # fmt: skip
    return found


def won(seed: int, family: Family, salt: float, pilot: bool, number: int) -> tuple[float, ...]:
    """Return a winner's gain with its interval, both again given that it won, and 1; without a win, all 0.

    Args:
        seed: of all worlds.
        family: with the share of its errors that the challenger puts right.
        salt: of this kind of challengers.
        pilot: return the gain of each, winner or not.
        number: of the repeat.
    """
    random = np.random.default_rng([seed, 12, int(10 * salt) + 1000 * pilot, number])
    world = World(random, family, WON_ON)
    said = world.challenger()
    groups = world.keys[world.query]
    ours, theirs = (confusion_by_query(world.labels, one, groups)[1] for one in (said, world.champion))
    gain = float(macro_f1(ours.sum(axis=0)) - macro_f1(theirs.sum(axis=0)))
    if pilot:
        return (gain,)
    level = look_at(0, 0.05).level
    alone = influences(ours)["macro_f1"] - influences(theirs)["macro_f1"]
    nothing = (0.0,) * 7
    if gain <= HOPELESS * quantile(level, 1e9) * float(np.sqrt((alone**2).sum())):
        return nothing
    change: Difference = _evidence(world, said, np.full(WON_ON, "us"), number, True).difference("macro_f1")
    bound = change.lower(level)
    given = given_that_it_won(change, [Check("gain", bound > 0, True, bound, 0.0, "")], "gain" if bound > 0 else "")
    if given is None:
        return nothing
    low, high = change.interval()
    if low is None or high is None:
        low = high = np.nan
    return change.value, low, high, given["estimate"], given["low"], given["high"], 1.0


def _share(gain: float) -> float:
    """Return the share of its errors that a challenger has to put right for a true gain in macro F1; by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        share = (low + high) / 2
        more = _metric("macro_f1", expected(share)) - _metric("macro_f1", expected(0.0)) < gain
        low, high = (share, high) if more else (low, share)
    return low


def _key(family: Family) -> tuple[float, ...]:
    return (family.by_query, family.by_product, family.products, *family.kept)
