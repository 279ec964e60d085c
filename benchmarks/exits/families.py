"""How often early exit changes more labels than it may, in worlds where the true share is known for every rule.

Margins and changes of label are drawn as such, without members. Four members are asked; the label of the first three
differs from the last one's with a chance that falls with the margin, in some families with more in some queries. In the
families of whole queries, some change their label in every pair, at every stage and at any margin. The true share of a
rule is its expectation for queries of the sizes that it was set on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import cache, partial

import numpy as np
from scipy.special import expit
from scipy.stats import gamma

from benchmarks.exits import previous
from benchmarks.harness import Figure, figure
from esci_tournament.tasks.ensemble.exit_calibration import calibrate_exit

RISK = 0.005
SIZES = {100: 100, 300: 100, 1000: 200, 3000: 100}  # queries: worlds
PAIRS = (8, 17)  # of a query: from, to below
_LARGER = np.arange(20, 51)  # times the pairs of other queries
MILLISECONDS = np.array([2.0, 4.0, 8.0, 16.0])
_ORDER = ("a", "b", "c", "d")
_START = np.array([0.3, -0.7, -1.7])  # log odds of a change at margin 0, after one, two and three members
_SLOPE = 1.5
_SEEN = np.array([0.6, 0.8, 1.0])  # of a pair's margin, after one, two and three members
PEER = "bound with a design effect"


@dataclass(frozen=True)
class Family:
    """How labels change together.

    Attributes:
        whole: share of the queries that change as a whole.
        others: whether labels change in the other queries as well.
        spread: variance of the factor by which a query's chances are larger or smaller; 0 for independent pairs.
        giants: share of the queries that have 20 to 50 times the pairs; or their number, from 1 on.
        giants_whole: share of these that change as a whole.
        uneven: whether sizes are log-normal, from 1 to 150, and not 8 to 16.
        products: share of the products that change in every query; each has five pairs, in any queries.
        fresh_sizes: whether the true share is that of fresh queries of fresh sizes, which nothing promises anything of.
    """

    whole: float = 0.0
    others: bool = True
    spread: float = 0.0
    giants: float = 0.0
    giants_whole: float = 0.0
    uneven: bool = False
    products: float = 0.0
    fresh_sizes: bool = False


FAMILIES = {
    "independent pairs": Family(),
    "beta-binomial queries": Family(spread=4.0),
    "0.6 % of queries change whole": Family(whole=0.006),
    "0.6 % of queries change whole, nothing else": Family(whole=0.006, others=False),
    "1.2 % of queries change whole": Family(whole=0.012),
    "2 % of queries change whole": Family(whole=0.02),
    "1.2 % change whole, uneven sizes": Family(whole=0.012, uneven=True),
    "2 % giants, 3 % of them change whole": Family(giants=0.02, giants_whole=0.03),
    "one giant that changes whole every other time": Family(giants=1, giants_whole=0.5),
    "1.2 % of products change whole": Family(products=0.012),
    "giants so rare that few or none is seen": Family(giants=0.0005, giants_whole=0.5, fresh_sizes=True),
}


@dataclass(frozen=True)
class World:
    """What a rule is set on.

    Attributes:
        scores: four times float64 (n, 4), decision scores.
        groups: uint64 (n,), query keys.
        labels: int8 (n,), those of all members.
        whole: chance that a pair's query changes as a whole, on average over the pairs.
    """

    scores: list[np.ndarray]
    groups: np.ndarray
    labels: np.ndarray
    whole: float


def figures(seed: int, quick: bool, run: Callable[[Callable[[int], tuple], range, str], list[tuple]]) -> list[Figure]:
    """Return for each family and number of queries how often the share is above the risk, and what is saved.

    Args:
        seed: of all worlds.
        quick: few worlds, of 100 and 1,000 queries.
        run: maps a function over numbers, in processes.
    """
    found = []
    for name, family in FAMILIES.items():
        for queries, worlds in SIZES.items():
            if quick and queries not in (100, 1000):
                continue
            work = partial(play, seed, family, queries)
            ours, theirs = np.array(run(work, range(8 if quick else worlds), f"{name}, {queries:,} queries")).swapaxes(
                0, 1
            )
            what = f"{name}, {queries:,} queries"
            for place, (told, target) in enumerate(
                (
                    ("above the risk", "<= 0.05"),
                    ("above the bound told", ""),
                    ("early exit on", ""),
                    ("calls saved", ""),
                )
            ):
                goal = "" if family.fresh_sizes else target
                beside = theirs[:, place].mean()
                found.append(figure(f"{what}: {told}", ours[:, place].mean(), "share", goal, PEER, beside))
    return found


def play(seed: int, family: Family, queries: int, number: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return whether the true share is above the risk, above the bound, whether pairs leave, and the calls saved.

    Args:
        seed: of all worlds.
        family: how labels change together.
        queries: that the rule is set on.
        number: of the world.

    Returns:
        These four for the rule, and for that of previous releases.
    """
    key = [int(10_000 * value) for value in astuple(family)]
    world = make(np.random.default_rng([seed, 5, *key, queries, number]), family, queries)
    rule = calibrate_exit(_ORDER, world.scores, world.labels, world.groups, MILLISECONDS.tolist(), RISK)
    own = np.array([np.inf if one is None else one for one in rule.level.thresholds])
    before, bound = previous.thresholds(world.scores, world.groups, MILLISECONDS, RISK)
    return _told(own, rule.level.bound, family, world), _told(before, bound, family, world)


def make(random: np.random.Generator, family: Family, queries: int) -> World:
    """Return a world.

    Args:
        random: of this world.
        family: how labels change together.
        queries: their number.
    """
    sizes = random.integers(*PAIRS, queries)
    if family.uneven:
        sizes = np.clip(np.exp(random.normal(2.0, 1.0, queries)).astype(np.int64), 1, 150)
    giant = random.random(queries) < family.giants
    if family.giants >= 1:
        giant = np.arange(queries) < family.giants
    sizes = np.where(giant, sizes * random.choice(_LARGER, queries), sizes)
    chance = np.where(giant, family.giants_whole, family.whole)
    factor = random.gamma(1 / family.spread, family.spread, queries) if family.spread else np.ones(queries)
    query = np.repeat(np.arange(queries), sizes)
    whole = (random.random(queries) < chance)[query]
    if family.products:
        whole |= (random.random(len(query) // 5 + 1) < family.products)[random.permutation(len(query)) // 5]
    margin = random.exponential(2.0, len(query))
    draw = random.random(len(query)) / np.maximum(factor[query], 1e-300)
    last = random.integers(4, size=len(query))
    scores = []
    for stage in range(3):
        changed = whole | (family.others & (draw < chances(margin, stage)))
        scores.append(np.eye(4)[(last + changed) % 4] * (_SEEN[stage] * margin)[:, None])
    scores.append(np.eye(4)[last] * margin[:, None])
    keys = random.integers(1, 2**63, queries, dtype=np.uint64)
    share = float((sizes * chance).sum() / sizes.sum()) + family.products
    if family.fresh_sizes:
        larger = family.giants * _LARGER.mean()
        share = larger * family.giants_whole / (1 - family.giants + larger)
    return World(scores, keys[query], last.astype(np.int8), share)


def chances(margin: np.ndarray, stage: int) -> np.ndarray:
    """Return the chance that a label changes after a stage, in a query that does not change as a whole.

    Args:
        margin: float (n,), nats, of all members.
        stage: 0 for after one member.

    Returns:
        float64 (n,); it falls from stage to stage.
    """
    return expit(_START[stage] - _SLOPE * margin)


def _told(thresholds: np.ndarray, bound: float, family: Family, world: World) -> tuple[float, ...]:
    share, saved = truth(thresholds, family, world.whole)
    return float(share > RISK), float(share > max(bound, 1e-12)), float(np.isfinite(thresholds).any()), saved


def truth(thresholds: np.ndarray, family: Family, whole: float) -> tuple[float, float]:
    """Return the expected share of changed labels under a rule, and the share of calls that it saves.

    Args:
        thresholds: float64 (3,), margins from which pairs leave.
        family: how labels change together.
        whole: chance that a pair's query changes as a whole.

    Returns:
        Both shares; the error of the numeric integration is far below a hundredth of the risk.
    """
    grid, level, expected = _quadrature(family.spread)
    leaves = grid[:, None] * _SEEN >= thresholds
    stage = np.where(leaves.any(axis=1), leaves.argmax(axis=1), 3)
    here = (stage < 3) & family.others
    changed = np.where(here, np.interp(chances(grid, np.minimum(stage, 2)), level, expected), 0.0)
    return float((whole * (stage < 3) + (1 - whole) * changed).mean()), float(1 - (stage + 1).mean() / 4)


@cache
def _quadrature(spread: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return quantiles of the margin, chances before a query's factor, and what they are on average with it."""
    middle = (np.arange(40_000) + 0.5) / 40_000
    grid, level = -2.0 * np.log1p(-middle), np.geomspace(1e-9, 1.0, 2000)
    if not spread:
        return grid, level, level
    factor = gamma.isf((np.arange(4000) + 0.5) / 4000, 1 / spread, scale=spread)
    return grid, level, np.minimum(level[:, None] * factor, 1.0).mean(axis=1)
