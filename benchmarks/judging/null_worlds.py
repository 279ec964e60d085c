"""Lifetimes of a test split on which nobody is better, with errors that queries, products or both share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy.stats import norm

from benchmarks.harness import Figure, figure
from benchmarks.judging.hopeless import HOPELESS
from esci_tournament.tasks.ensemble.case import JudgeInput, JudgeSettings
from esci_tournament.tasks.ensemble.counts import confusion, confusion_by_query, macro_f1, slopes
from esci_tournament.tasks.ensemble.judge import judge
from esci_tournament.tasks.ensemble.recurrence import Recurrence, RecurringPairs
from esci_tournament.tasks.ensemble.spending import History, look_at

LOOKS = 50
PAIRS_A_QUERY = 14.0
PRIOR = np.array([0.65, 0.22, 0.03, 0.10])
RIGHT = np.array([0.84, 0.50, 0.38, 0.49])  # how often a model answers a pair of each class right
SIZES = (60, 300, 1000, 3000, 22_000)

Run = Callable[[Callable[[int], tuple], range, str], list[tuple]]


@dataclass(frozen=True)
class Family:
    """One kind of world.

    Attributes:
        by_query: share of the pairs whose error is decided once for the whole query.
        by_product: share of the pairs whose error is decided once for the product.
        products: products for each query on average.
        hot: share of the pairs that are on one of 20 products in great demand.
        kept: a challenger keeps a share of the champion's decisions that is drawn from this range.
        gain: share of its errors that a challenger puts right; 0 in a world where nobody is better.
    """

    by_query: float = 0.0
    by_product: float = 0.0
    products: float = 1.0
    hot: float = 0.0
    kept: tuple[float, float] = (0.3, 0.9)
    gain: float = 0.0


FAMILIES = {
    "query effects": Family(by_query=0.4),
    "product effects": Family(by_product=0.5),
    "weak product effects": Family(by_product=0.15),
    "query and product effects": Family(by_query=0.25, by_product=0.4),
    "near-copies, product effects": Family(by_product=0.5, kept=(0.9, 0.99)),
    "independent equals, product effects": Family(by_product=0.5, kept=(0.0, 0.0)),
    "half the pairs on 20 products": Family(by_product=0.4, products=8, hot=0.5),
    "products under 1.8 queries, product effects": Family(by_product=0.5, products=11),
}


def figures(seed: int, quick: bool, run: Run) -> list[Figure]:
    """Return how many lifetimes promote an equal challenger, by family and size, and what the products cost in power.

    Args:
        seed: of all worlds.
        quick: fewer lifetimes, and no large sizes.
        run: maps a function over numbers, in processes.
    """
    found = []
    for name, family in FAMILIES.items():
        for queries in SIZES[:2] if quick else SIZES:
            lifetimes = 6 if quick else 200 if queries <= 3000 else 40
            what = f"{name}, {queries:,} queries"
            results = np.array(run(partial(lifetime, seed, family, queries), range(lifetimes), f"lifetimes: {what}"))
            ours, blind = results.mean(axis=0)
            found.append(
                figure(
                    f"{what}: {lifetimes} lifetimes that promote", ours, "share", "<= 0.05", "products ignored", blind
                )
            )
    rare = Family(by_query=0.2, products=28, kept=(0.8, 0.8), gain=0.012)
    common = replace(rare, products=1)
    for name, family, queries in (
        ("3,000 queries, a quarter of the products recur", rare, 3000),
        ("3,000 queries, every product recurs", common, 3000),
        ("60 queries, every product recurs", replace(common, gain=0.12), 60),
    ):
        repeats = 8 if quick else 100
        results = np.array(run(partial(first_look, seed, family, queries), range(repeats), f"true gains, {name}"))
        ours, blind = results.mean(axis=0)
        title = f"a gain without product effects, {name}: promoted in the first tournament"
        found.append(figure(title, ours, "share", "", "products ignored", blind))
    return found


def lifetime(seed: int, family: Family, queries: int, number: int) -> tuple[bool, bool]:
    """Return whether any of 50 equal challengers is promoted, by the judge and by one that does not know products."""
    random = np.random.default_rng([seed, 7, queries, number, *(int(1e3 * share) for share in _key(family))])
    world = World(random, family, queries)
    promoted = [False, False]
    for look in range(LOOKS):
        said = world.challenger()
        promoted = [one or now for one, now in zip(promoted, world.judged(said, look, number, promoted), strict=True)]
    return promoted[0], promoted[1]


def first_look(seed: int, family: Family, queries: int, number: int) -> tuple[bool, bool]:
    """Return whether a better challenger is promoted at the first look, with and without knowing products."""
    world = World(np.random.default_rng([seed, 8, queries, number]), family, queries)
    ours, blind = world.judged(world.challenger(), 0, number, [False, False])
    return ours, blind


class World:
    """A test split and its champion.

    Whether a pair is answered wrongly follows from a number between 0 and 1 that it has from its query, from its
    product, or of its own: so each model errs equally often in every world of a size, and only luck is shared.

    Args:
        random: the generator of everything.
        family: what is shared.
        queries: number of queries.
    """

    def __init__(self, random: np.random.Generator, family: Family, queries: int) -> None:
        self._random, self._family = random, family
        self.query = np.repeat(np.arange(queries), 1 + random.poisson(PAIRS_A_QUERY - 1, size=queries))
        pairs = len(self.query)
        number = max(int(queries * family.products), 25)
        hot = random.random(pairs) < family.hot
        self.product = np.where(hot, random.integers(20, size=pairs), random.integers(20, number, size=pairs))
        self.sizes = (queries, number, pairs)
        self.labels = random.choice(4, size=pairs, p=PRIOR).astype(np.int8)
        self.keys = np.sort(random.integers(0, 2**63, size=queries, dtype=np.uint64))
        self._lots = [random.random(size) for size in self.sizes]
        self._source = self._sources()
        self.champion = self._answers(self._lots, self._source)

    def _sources(self) -> np.ndarray:
        """Return where each pair has its number from: 0 its query, 1 its product, 2 itself."""
        drawn = self._random.random(self.sizes[2])
        return (drawn >= self._family.by_query).astype(np.int8) + (
            drawn >= self._family.by_query + self._family.by_product
        )

    def _answers(self, lots: list[np.ndarray], source: np.ndarray) -> np.ndarray:
        number = np.choose(source, (lots[0][self.query], lots[1][self.product], lots[2]))
        right = RIGHT[self.labels]
        wrong = number >= right
        # What is left of the number says which of the three other classes it is
        other = np.minimum(((number - right) / (1 - right) * 3).astype(np.int64), 2)
        return np.where(wrong, (self.labels + 1 + other) % 4, self.labels).astype(np.int8)

    def challenger(self) -> np.ndarray:
        """Return the answers of a challenger that keeps some of the champion's numbers and draws the others anew."""
        random, family = self._random, self._family
        kept = random.uniform(*family.kept)
        lots = [np.where(random.random(len(old)) < kept, old, random.random(len(old))) for old in self._lots]
        source = np.where(random.random(self.sizes[2]) < kept, self._source, self._sources())
        said = self._answers(lots, source)
        return (
            np.where(random.random(len(said)) < family.gain, self.labels, said).astype(np.int8) if family.gain else said
        )

    def judged(self, said: np.ndarray, look: int, seed: int, already: list[bool]) -> tuple[bool, bool]:
        """Return whether the judge promotes, and whether it would without products; False where one already has.

        The judge is asked only where its answer is open: it takes seconds at the largest size.
        """
        gain, alone, by_cell = self._gain(said)
        needed = HOPELESS * float(norm.isf(look_at(History(look), 0.05).level))
        if gain <= needed * float(np.sqrt((alone**2).sum())):
            return False, False
        groups = self.keys[self.query]
        counts = [confusion_by_query(self.labels, answers, groups)[1] for answers in (said, self.champion)]
        blind = JudgeInput(self.keys, np.full(len(self.keys), "us"), *counts, before=History(look))
        settings = JudgeSettings(threads=1, seed=seed)
        without = already[1] or judge(blind, settings).outcome == "promote"
        if already[0] or not without:  # with products known, no bound is higher
            return False, without
        recurring = RecurringPairs.among(
            self.product, groups, label=self.labels, challenger=said, champion=self.champion
        )
        sizes = np.bincount(self.query)
        by_pair = by_cell[0][recurring.cells(0)] - by_cell[1][recurring.cells(1)]
        added, _ = Recurrence(recurring, self.keys, np.zeros(len(sizes), np.int64), sizes).added(alone, by_pair)
        if gain <= needed * float(np.sqrt((alone**2).sum() + added)):
            return False, without
        return judge(replace(blind, recurring=recurring), settings).outcome == "promote", without

    def _gain(self, said: np.ndarray) -> tuple[float, np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """Return the gain in macro F1, how much each query moves it, and how much a pair in each cell of both sides."""
        ours, theirs = (confusion(self.labels, answers) for answers in (said, self.champion))
        one, other = (slopes((), whole)["macro_f1"] for whole in (ours, theirs))
        truth = self.labels.astype(np.int64) * 4
        moved = np.bincount(self.query, one[truth + said] - other[truth + self.champion])
        return float(macro_f1(ours) - macro_f1(theirs)), moved, (one, other)


def _key(family: Family) -> tuple[float, ...]:
    return (family.by_query, family.by_product, family.products, family.hot, *family.kept)
