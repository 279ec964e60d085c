"""Error rates of the judge: simulated test splits and challengers whose true quality is known.

1. Lifetimes: one test split, one champion, 50 tournaments with challengers that are truly equal to it (the hardest case
   of "no real improvement"). A lifetime fails if any is promoted. Two naive gates run on the same numbers.
2. A true gain of 1 point of macro F1, at the size of ESCI's test split.
3. A true loss of 2 points of macro F1 in one locale, hidden under a gain of 2 points in the others, at that size.
4. The cost of the rule for small locales: a locale of 40 queries and an equal or a much worse challenger there.
5. Lifetimes in which errors are shared by queries, by products or both, from 60 to 22,000 queries, with the product's
   own 10,000 resamples; beside them, a judge that does not know which pairs have the same product.
6. Homes in which nobody is better, whose test pairs stay, are numbered anew or change by and by; and an adversary who
   climbs on what is published, with test numbers sealed and with test numbers told.
7. How often a true gain is promoted at the first and the tenth look, beside a judge that compares labels alone.
8. The numbers that a verdict shows: how often its intervals hold the truth, and the gain of a winner.
9. The time of one verdict: 10,000 resamples of 640,000 pairs, and the same where most pairs are of products that recur.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context

import numpy as np
from scipy.stats import norm

from benchmarks.harness import Figure, arguments, figure, median_seconds, report, say
from benchmarks.judging import homes, intervals, null_worlds, power
from benchmarks.judging.hopeless import gain_and_error, hopeless
from esci_tournament.tasks.ensemble.counts import confusion_by_query, macro_f1
from esci_tournament.tasks.ensemble.judge import JudgeInput, JudgeSettings, judge
from esci_tournament.tasks.ensemble.recurrence import RecurringPairs
from esci_tournament.tasks.ensemble.spending import History, look_at

ESCI = {"us": 22_500, "es": 3_850, "jp": 4_650}  # queries, about as in ESCI's test split; 20.6 pairs each
SMALL = {"us": 260, "es": 70, "jp": 70}
PAIRS_A_QUERY = {"esci": 20.6, "small": 16.0}
LOOKS = 50
PARTS = ("lifetimes", "sizes", "locales", "products", "homes", "power", "intervals", "time")
PRIOR = np.array([0.65, 0.22, 0.03, 0.10])
# How often the champion answers what (columns) to what is true (rows): macro F1 about 0.55, as a good single model's
CONFUSION = np.array(
    [
        [0.86, 0.10, 0.01, 0.03],
        [0.38, 0.53, 0.02, 0.07],
        [0.32, 0.22, 0.36, 0.10],
        [0.28, 0.22, 0.03, 0.47],
    ]
)


@dataclass(frozen=True)
class Split:
    """A simulated test split: query and label of each pair, and how hard each query is (errors are scaled by it)."""

    query: np.ndarray
    labels: np.ndarray
    keys: np.ndarray
    locale: np.ndarray
    hardness: np.ndarray


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and return 0 when every target is met, else 1; a quick run only shows that it runs."""
    options = arguments("gate", __doc__, argv, PARTS)
    lifetimes, repeats = (10, 4) if options.quick else (1000, 100)
    parts: dict[str, Callable[[], list[Figure]]] = {
        "lifetimes": partial(lifetime_figures, lifetimes, options.seed),
        "sizes": partial(size_figures, repeats, options.seed, options.quick),
        "locales": partial(small_locale_figures, max(repeats, 20), options.seed),
        "products": partial(null_worlds.figures, options.seed, options.quick, _map),
        "homes": partial(homes.figures, options.seed, options.quick, _map),
        "power": partial(power.figures, options.seed, options.quick, _map),
        "intervals": partial(intervals.figures, options.seed, options.quick, _map),
        "time": partial(timing_figures, options.seed, 3),
    }
    figures = [one for part, measure in parts.items() if part in options.only for one in measure()]
    report("gate", figures, options.json)
    return 0 if options.quick or all(each.met is not False for each in figures) else 1


def lifetime_figures(lifetimes: int, seed: int) -> list[Figure]:
    """Return how many lifetimes without any better challenger promote one."""
    results = np.array(_map(partial(lifetime, seed), range(lifetimes), "lifetimes"))
    ours, higher, naive = results.mean(axis=0)
    return [
        figure("lifetimes without improvement", lifetimes, "lifetimes", ">= 1000"),
        figure("tournaments each", LOOKS, "tournaments", ">= 50"),
        figure("lifetimes that promote anything", ours, "share", "<= 0.05", "gate: higher is better", higher),
        figure("the same, 5 % at each look without spending", naive, "share"),
    ]


def lifetime(seed: int, number: int) -> tuple[bool, bool, bool]:
    """Return whether any of 50 equal challengers is promoted by the judge, by "higher is better", and at 5 % a look."""
    random = np.random.default_rng([seed, 1, number])
    split = make_split(random, SMALL, PAIRS_A_QUERY["small"])
    champion = answers(random, split)
    settings = JudgeSettings(threads=1, seed=number)
    promoted = higher = naive = False
    for look in range(LOOKS):
        challenger = variant(random, split, champion, float(random.uniform(0.3, 0.95)))
        case = case_of(split, challenger, champion, look)
        gain, error = gain_and_error(case)
        higher |= gain > 0
        naive |= gain > norm.isf(settings.alpha) * error
        if not promoted and not hopeless(case, look_at(case.before, settings.alpha).level):
            promoted = judge(case, settings).outcome == "promote"
    return promoted, higher, naive


def size_figures(repeats: int, seed: int, quick: bool) -> list[Figure]:
    """Return how often a true gain is promoted and a hidden loss is refused, at the size of ESCI's test split."""
    sizes = {place: queries // 20 for place, queries in ESCI.items()} if quick else ESCI
    gain = dict.fromkeys(ESCI, improvement(0.01))
    hidden = {"us": improvement(0.02), "es": improvement(0.02), "jp": improvement(-0.02)}
    everywhere = dict.fromkeys(ESCI, improvement(-0.001))
    play = partial(first_look, seed, sizes, PAIRS_A_QUERY["esci"])
    gained = _map(partial(play, gain, "gain"), range(repeats), "first tournaments with a gain of 1 point")
    lost = _map(partial(play, hidden, "hidden"), range(repeats), "first tournaments with a hidden loss of 2 points")
    worse = _map(partial(play, everywhere, "worse"), range(repeats), "first tournaments 0.1 point worse")
    return [
        figure("pairs of the large test split", sum(sizes.values()) * PAIRS_A_QUERY["esci"], "pairs"),
        figure("gain of 1 point: promoted in the first tournament", np.mean([p for p, _ in gained]), "share", ">= 0.9"),
        figure(
            "loss of 2 points in one locale under a gain elsewhere: refused", 1 - np.mean([p for p, _ in lost]),
            "share", ">= 0.95", "gate: higher is better", 1 - np.mean([higher for _, higher in lost]),
        ),
        figure(
            "0.1 point worse everywhere: refused", 1 - np.mean([p for p, _ in worse]), "share", "",
            "gate: higher is better", 1 - np.mean([higher for _, higher in worse]),
        ),
    ]  # fmt: skip


def first_look(
    seed: int, sizes: Mapping[str, int], pairs: float, better: Mapping[str, float], scenario: str, number: int
) -> tuple[bool, bool]:
    """Return whether the first look promotes, and whether macro F1 is higher at all."""
    random = np.random.default_rng([seed, 2, sum(scenario.encode()), number])
    split = make_split(random, sizes, pairs)
    champion = answers(random, split)
    challenger = variant(random, split, champion, 0.8, better)
    verdict = judge(case_of(split, challenger, champion, 0), JudgeSettings(threads=1, seed=number))
    return verdict.outcome == "promote", verdict.metric("macro_f1").difference > 0


def small_locale_figures(repeats: int, seed: int) -> list[Figure]:
    """Return what happens to a gain of 4 points elsewhere when a locale has 40 queries and is equal or much worse."""
    sizes = {"us": 3000, "jp": 40}
    figures = []
    for name, change in (("equal there", 0.0), ("5 points worse there", -0.05), ("20 points worse there", -0.20)):
        better = {"us": improvement(0.04), "jp": improvement(change) if change else 0.0}
        play = partial(first_look, seed, sizes, PAIRS_A_QUERY["small"], better, name)
        results = _map(play, range(repeats), f"first tournaments, locale of 40 queries, {name}")
        figures.append(figure(f"locale of 40 queries, {name}: refused", 1 - np.mean([p for p, _ in results]), "share"))
    return figures


def timing_figures(seed: int, runs: int) -> list[Figure]:
    """Return the time of one verdict on 640,000 pairs with 10,000 resamples, without and with products."""
    random = np.random.default_rng([seed, 3])
    split = make_split(random, ESCI, PAIRS_A_QUERY["esci"])
    champion = answers(random, split)
    challenger = variant(random, split, champion, 0.8)
    case = case_of(split, challenger, champion, 0)
    products = random.integers(len(split.labels), size=len(split.labels))
    pairs = RecurringPairs.among(
        products, split.keys[split.query], label=split.labels, challenger=challenger, champion=champion
    )
    say("timing one verdict")
    judge(case, JudgeSettings(resamples=100))
    name = f"verdict on {len(split.labels):,} pairs, 10,000 resamples, 2 threads"
    seconds = [
        median_seconds(partial(judge, one, JudgeSettings()), runs) for one in (case, replace(case, recurring=pairs))
    ]
    shared = f"the same, {len(pairs.label):,} pairs of products that recur"
    return [figure(name, seconds[0], "s", "<= 10"), figure(shared, seconds[1], "s", "<= 10")]


def make_split(random: np.random.Generator, sizes: Mapping[str, int], pairs: float) -> Split:
    """Return a test split with the given number of queries in each locale."""
    queries = sum(sizes.values())
    query = np.repeat(np.arange(queries), np.maximum(random.poisson(pairs, size=queries), 1))
    labels = random.choice(4, size=len(query), p=PRIOR).astype(np.int8)
    keys = np.sort(random.integers(0, 2**63, size=queries, dtype=np.uint64))
    locale = np.repeat(np.array(list(sizes)), list(sizes.values()))
    return Split(query, labels, keys, locale, random.uniform(0.5, 1.5, size=queries))


def answers(random: np.random.Generator, split: Split, confusion: np.ndarray = CONFUSION) -> np.ndarray:
    """Return what a model with this confusion answers, int8 (n,); in hard queries it errs more often."""
    errors = confusion - np.diag(np.diag(confusion))
    wrong = errors.sum(axis=1)
    thresholds = np.cumsum(errors / wrong[:, None], axis=1)
    picked = (random.random(len(split.labels))[:, None] > thresholds[split.labels]).sum(axis=1)
    errs = random.random(len(split.labels)) < wrong[split.labels] * split.hardness[split.query]
    return np.where(errs, np.minimum(picked, 3), split.labels).astype(np.int8)


def variant(
    random: np.random.Generator,
    split: Split,
    champion: np.ndarray,
    alike: float,
    better: Mapping[str, float] | None = None,
) -> np.ndarray:
    """Return a challenger's answers: mostly the champion's, in whole queries or single pairs, else drawn anew.

    In locale l a share `better[l]` of its errors is put right; if negative, a share of its right answers is drawn
    anew from the errors. Without `better` it is truly equal: the same chances, other luck.
    """
    same_query = random.random(len(split.keys)) < alike / 2
    same = same_query[split.query] | (random.random(len(split.labels)) < alike / 2)
    predicted = np.where(same, champion, answers(random, split))
    if better:
        share = np.array([better[place] for place in split.locale.tolist()])[split.query]
        chance = random.random(len(share))
        predicted = np.where((share > 0) & (chance < share), split.labels, predicted)
        spoiled = (share < 0) & (chance < -share)
        predicted = np.where(spoiled, answers(random, split, spoiler()), predicted)
    return predicted.astype(np.int8)


def spoiler() -> np.ndarray:
    """Return the confusion of what a worse challenger falls back to: always one of the champion's typical errors."""
    errors = CONFUSION - np.diag(np.diag(CONFUSION))
    mixed = errors / errors.sum(axis=1, keepdims=True)
    return 0.35 * np.eye(4) + 0.65 * mixed


def improvement(points: float) -> float:
    """Return the share for :func:`variant` that changes the true macro F1 by `points`; by bisection."""
    sign = 1.0 if points >= 0 else -1.0
    other = np.eye(4) if points >= 0 else spoiler()
    base = float(macro_f1(PRIOR[:, None] * CONFUSION))
    low, high = 0.0, 1.0
    for _ in range(60):
        share = (low + high) / 2
        change = float(macro_f1(PRIOR[:, None] * ((1 - share) * CONFUSION + share * other))) - base
        low, high = (share, high) if abs(change) < abs(points) else (low, share)
    return sign * low


def case_of(split: Split, challenger: np.ndarray, champion: np.ndarray, looks: int) -> JudgeInput:
    """Return the judge's input."""
    groups = split.keys[split.query]
    keys, ours = confusion_by_query(split.labels, challenger, groups)
    theirs = confusion_by_query(split.labels, champion, groups)[1]
    return JudgeInput(keys, split.locale, ours, theirs, before=History(looks))


def _map(work: Callable[[int], tuple], numbers: Iterable[int], what: str) -> list[tuple]:
    numbers = list(numbers)
    results = []
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for done, result in enumerate(pool.map(work, numbers, chunksize=4), 1):
            results.append(result)
            if done % max(len(numbers) // 5, 1) == 0:
                shares = ", ".join(f"{share:.3f}" for share in np.mean(results, axis=0))
                say(f"{done} of {len(numbers)} {what}; so far {shares}")
    return results


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    sys.exit(main())
