"""Regret of each selection rule over generated worlds, with 8 to 30 models.

The regret of a rule is the value of the best set within the budget less that of the chosen set. Costs are uneven and
the budget is 0.35 to 0.75 of the memory and of the time of all models.

1. `product`: the product's own game (the value of a set is the out-of-fold macro F1 of the ensemble re-fit on it), 8
   models (near-duplicates, weak but different ones, useless ones, plain ones), against exhaustive search.
2. `larger`: the product's own game with 13 models, against the best of all rules and of the 100 sets that are best in
   the cheap game below.
3. `many`: a cheap game of the same kind (a linear stacker), with 8 to 30 models, in worlds of five structures. Up to 16
   models the regret is against every set; above, against a search of many thousand sets that starts from what the rules
   found. The same two sets are compared on pairs of other queries too.
4. `time`: seconds of one re-fit of half of the models, with the parameters of parts 1 and 2 and with the product's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from time import perf_counter

import numpy as np

from benchmarks.choosing.games import LinearGame
from benchmarks.choosing.previous import neighbours
from benchmarks.choosing.reference import best_set, every_set_within
from benchmarks.choosing.structures import STRUCTURES, make_structured, split
from benchmarks.harness import Figure, arguments, figure, median_seconds, report, say
from benchmarks.worlds import World, make_world
from esci_tournament.tasks.ensemble.aggregate import AggregatorParameters
from esci_tournament.tasks.ensemble.budget import Budget, Cost
from esci_tournament.tasks.ensemble.search import Valued
from esci_tournament.tasks.ensemble.select import Selection, select
from esci_tournament.tasks.ensemble.selection_rules import RULES
from esci_tournament.tasks.ensemble.value import Game

PARTS = ("product", "larger", "many", "time")
WORLDS = {8: 100, 13: 100, 16: 30, 20: 20, 30: 10}  # of the cheap game
PRODUCT_WORLDS = 24
LARGER_WORLDS = 1
ROWS = 3000
OTHER_ROWS = 9000
# Boosting in long steps, so that thousands of re-fits take minutes and not a day; the same for every rule
PARAMETERS = AggregatorParameters(
    learning_rate=0.3, maximum_rounds=30, patience=2, leaves=8, depth=3, folds=2, threads=1
)
ALL_STRUCTURES = ("ordinary", *STRUCTURES)
UNSEEN = ("blocks", "graded")  # structures that no setting of the rule was chosen with
RULES["neighbours"] = neighbours  # as a plug-in adds its own


@dataclass
class Outcome:
    """What each rule did in one world.

    Attributes:
        structure: Of the world.
        regret: In macro F1, of each rule.
        refits: Of each rule.
        elsewhere: What the best set has over that of `shap` on other pairs, in macro F1.
        seconds: That `shap` took, fits included.
    """

    structure: str
    regret: dict[str, float]
    refits: dict[str, int]
    elsewhere: float = 0.0
    seconds: float = 0.0


class Counted:
    """A view of a game that counts the re-fits one rule would have needed, had it been alone."""

    def __init__(self, game: Valued) -> None:
        self._game, self.members = game, game.members
        self.values: dict[frozenset[str], float] = {}
        self.refits = 0

    def value(self, subset: Iterable[str]) -> float:
        """Return v(subset)."""
        key = frozenset(subset)
        if key not in self.values:
            self.refits += bool(key)
            self.values[key] = self._game.value(key)
        return self.values[key]

    def utility(self, subset: Iterable[str]) -> dict[str, float]:
        """Return SHAP's utilities in the ensemble fitted on `subset`."""
        self.value(subset)
        return self._game.utility(subset)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return 0 when every target is met, else 1; a quick run only shows that it runs."""
    options = arguments("selection", __doc__, argv, PARTS)
    parts: dict[str, Callable[[], list[Figure]]] = {
        "product": partial(product_figures, options.seed, 1 if options.quick else PRODUCT_WORLDS),
        "larger": partial(larger_figures, options.seed, 0 if options.quick else LARGER_WORLDS),
        "many": partial(many_figures, options.seed, {8: 5, 13: 5} if options.quick else WORLDS),
        "time": partial(time_figures, options.seed),
    }
    figures = [one for part, measure in parts.items() if part in options.only for one in measure()]
    report("selection", figures, options.json, beside=True)
    return 0 if options.quick or all(each.met is not False for each in figures) else 1


def product_figures(seed: int, worlds: int) -> list[Figure]:
    """Return the regret in the product's own game with 8 models, against every set."""
    outcomes = _each(partial(play_product, 8), _seeds(seed, 1000, worlds), "worlds of 8 models, the product's game")
    shap, top = _regrets(outcomes, "shap"), _regrets(outcomes, "top_k")
    refits = {rule: sum(each.refits[rule] for each in outcomes) for rule in RULES}
    where = "product's game, 8 models"
    return [
        figure(f"{where}: worlds", worlds, "worlds", ">= 200"),
        figure(f"{where}: mean regret", shap.mean(), "macro F1", "<= 0.001", "top_k", top.mean()),
        figure(f"{where}: worst regret", shap.max(), "macro F1", "<= 0.01", "top_k", top.max()),
        *_beside(where, outcomes, ("neighbours", "greedy")),
        figure(f"{where}: top_k's mean regret over shap's", top.mean() / max(shap.mean(), 1e-9), "times", ">= 10"),
        figure(
            f"{where}: re-fits, share of exhaustive's", refits["shap"] / refits["exhaustive"], "share",
            f"<= {1 / 3:.4f}", "greedy", refits["greedy"] / refits["exhaustive"],
        ),
        figure(
            f"{where}: re-fits a world", refits["shap"] / worlds, "re-fits", "", "exhaustive",
            refits["exhaustive"] / worlds,
        ),
        figure(f"{where}: worlds without regret", (shap <= 0).mean(), "share", "", "top_k", (top <= 0).mean()),
    ]  # fmt: skip


def larger_figures(seed: int, worlds: int) -> list[Figure]:
    """Return the regret in the product's own game with 13 models, against the best set that was found."""
    if not worlds:
        return []
    outcomes = _each(partial(play_product, 13), _seeds(seed, 5000, worlds), "worlds of 13 models, the product's game")
    return _regret_figures("product's game, 13 models", outcomes, "<= 0.005")


def many_figures(seed: int, worlds: dict[int, int]) -> list[Figure]:
    """Return the regret in the cheap game, for each number of models."""
    figures = []
    for models, count in worlds.items():
        outcomes = _each(partial(play_linear, models), _seeds(seed, 9000, count), f"worlds of {models} models")
        where = f"{models} models"
        figures += _regret_figures(where, outcomes, "<= 0.005", ">= 100")
        unseen = [each for each in outcomes if each.structure in UNSEEN]
        figures += [
            figure(
                f"{where}: worst regret, unseen structures", _regrets(unseen, "shap").max(), "macro F1", "<= 0.005",
                "neighbours", _regrets(unseen, "neighbours").max(),
            ),
            figure(f"{where}: mean regret on other pairs", np.mean([each.elsewhere for each in outcomes]), "macro F1"),
            figure(f"{where}: seconds of shap, median", np.median([each.seconds for each in outcomes]), "s"),
        ]  # fmt: skip
    return figures


def time_figures(seed: int) -> list[Figure]:
    """Return the time of one re-fit of half of the models, which is about what a budget carries."""
    figures = []
    for models in (8, 13, 30):
        world = make_world(seed + 1, rows=ROWS, members=models)
        for words, parameters in (("", PARAMETERS), (", the product's parameters", AggregatorParameters(threads=1))):
            game = Game(world.columns, world.labels, world.groups, world.members, parameters)
            halves = iter([world.members[start : start + models // 2] for start in range(3)])
            seconds = median_seconds(partial(_fit_next, game, halves), 3)
            figures.append(figure(f"{models} models: a re-fit of half of them{words}", seconds, "s"))
    return figures


def _fit_next(game: Game, sets: Iterator[tuple[str, ...]]) -> None:
    game.value(next(sets))


def play_product(models: int, seed: int) -> Outcome:
    """Return what each rule does in the product's own game, in the world of this seed."""
    world = make_world(seed, rows=ROWS, members=models)
    costs, budget = prices(world, seed)
    game = Game(world.columns, world.labels, world.groups, world.members, PARAMETERS)
    every_set = models <= 8
    chosen = _choices(game, costs, budget, [rule for rule in RULES if every_set or rule != "exhaustive"])
    if every_set:
        best = chosen["exhaustive"].value
    else:
        promising = best_in_cheap_game(world, budget, 100)
        best = max([one.value for one in chosen.values()] + [game.value(members) for members in promising])
    return Outcome(
        "ordinary",
        {rule: best - one.value for rule, one in chosen.items()},
        {rule: one.refits for rule, one in chosen.items()},
    )


def best_in_cheap_game(world: World, budget: Budget, count: int) -> list[frozenset[str]]:
    """Return the sets within the budget that are best in the cheap game, of a world of up to 16 models."""
    game, found = LinearGame(world), every_set_within(world, budget)
    order = np.argsort(-game.values_of(found), kind="stable")[:count]
    return [frozenset(np.array(world.members)[found[place]].tolist()) for place in order]


def play_linear(models: int, seed: int) -> Outcome:
    """Return what each rule does in the cheap game, in the world of this seed."""
    structure = ALL_STRUCTURES[seed % len(ALL_STRUCTURES)]
    everything = ROWS + OTHER_ROWS
    if structure == "ordinary":
        world = make_world(seed, rows=everything, members=models)
    else:
        world = make_structured(structure, seed, rows=everything, members=models)
    world, others = split(world, ROWS)
    costs, budget = prices(world, seed)
    game = LinearGame(world)
    start = perf_counter()
    chosen = {"shap": select(game, costs, budget, "shap")}
    seconds = perf_counter() - start
    chosen |= _choices(game, costs, budget, ["neighbours", "greedy", "top_k"])
    members, value = best_set(game, world, budget, [one.kept for one in chosen.values()], seed)
    return Outcome(
        structure,
        {rule: max(value - one.value, 0.0) for rule, one in chosen.items()},
        {rule: one.refits for rule, one in chosen.items()},
        game.elsewhere(members, others) - game.elsewhere(chosen["shap"].kept, others),
        seconds,
    )


def prices(world: World, seed: int) -> tuple[dict[str, Cost], Budget]:
    """Return the cost of each model and a budget for 0.35 to 0.75 of the memory and of the time of all together."""
    random = np.random.default_rng([seed, 1])
    costs = {
        name: Cost(float(memory), float(time))
        for name, memory, time in zip(world.members, world.memory_mib, world.milliseconds, strict=True)
    }
    shares = random.uniform(0.35, 0.75, size=2)
    return costs, Budget(float(world.memory_mib.sum() * shares[0]), float(world.milliseconds.sum() * shares[1]))


def _choices(game: Valued, costs: dict[str, Cost], budget: Budget, rules: Iterable[str]) -> dict[str, Selection]:
    chosen = {rule: select(Counted(game), costs, budget, rule) for rule in rules}
    for rule, one in chosen.items():
        if not budget.fits(one.kept, costs):
            raise AssertionError(f"{rule} chose {one.kept}, which exceeds the budget")
    return chosen


def _seeds(seed: int, start: int, count: int) -> range:
    return range(seed * 1_000_000 + start, seed * 1_000_000 + start + count)


def _each(play: Callable[[int], Outcome], seeds: range, what: str) -> list[Outcome]:
    """Return the outcome of each world. They are played in a new process, which has one thread as set below."""
    outcomes: list[Outcome] = []
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for number, outcome in enumerate(pool.map(play, seeds), 1):
            outcomes.append(outcome)
            if number % 10 == 0 or number == len(seeds):
                regret = _regrets(outcomes, "shap")
                say(f"{number} of {len(seeds)} {what}; regret so far {regret.mean():.5f}, worst {regret.max():.4f}")
    return outcomes


def _regrets(outcomes: Iterable[Outcome], rule: str) -> np.ndarray:
    return np.array([outcome.regret[rule] for outcome in outcomes])


def _regret_figures(where: str, outcomes: list[Outcome], target: str, wanted: str = "") -> list[Figure]:
    shap = _regrets(outcomes, "shap")
    return [
        figure(f"{where}: worlds", len(outcomes), "worlds", wanted),
        *_beside(where, outcomes, ("neighbours", "greedy", "top_k"), target),
        figure(f"{where}: worlds with a regret of 0.005 or less", (shap <= 0.005).mean(), "share"),
        figure(
            f"{where}: re-fits a world", np.mean([each.refits["shap"] for each in outcomes]), "re-fits", "",
            "neighbours", np.mean([each.refits["neighbours"] for each in outcomes]),
        ),
    ]  # fmt: skip


def _beside(where: str, outcomes: list[Outcome], peers: Iterable[str], target: str = "") -> list[Figure]:
    shap = _regrets(outcomes, "shap")
    figures = []
    for peer in peers:
        theirs = _regrets(outcomes, peer)
        figures.append(figure(f"{where}: mean regret", shap.mean(), "macro F1", "", peer, theirs.mean()))
        figures.append(figure(f"{where}: worst regret", shap.max(), "macro F1", target, peer, theirs.max()))
    return figures


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.exit(main())
