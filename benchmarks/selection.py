"""Regret of each selection rule against exhaustive search, over generated worlds.

Each world has 8 models (near-duplicates, weak but different ones, useless ones, plain ones) whose uneven costs are
unrelated to their value, and a budget on memory and on time. The value of a set is the out-of-fold macro F1 of the
ensemble re-fit on it. The regret of a rule is the value of the best set within the budget less that of the chosen set.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np

from benchmarks.harness import Figure, arguments, figure, report, say
from benchmarks.worlds import World, make_world
from esci_tournament.tasks.ensemble.aggregate import AggregatorParameters
from esci_tournament.tasks.ensemble.budget import Budget, Cost
from esci_tournament.tasks.ensemble.select import select
from esci_tournament.tasks.ensemble.selection_rules import RULES
from esci_tournament.tasks.ensemble.value import Game

MODELS = 8
ROWS = 3000
# Boosting in long steps, so that some 20,000 re-fits take minutes and not a day; the same for every rule
PARAMETERS = AggregatorParameters(
    learning_rate=0.3, maximum_rounds=30, patience=2, leaves=8, depth=3, folds=2, threads=1
)


@dataclass(frozen=True)
class Outcome:
    """What each rule did in one world: regret in macro F1, and re-fits."""

    regret: dict[str, float]
    refits: dict[str, int]


class Counted:
    """A view of a game that counts the re-fits one rule would have needed, had it been alone."""

    def __init__(self, game: Game) -> None:
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


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and return 0 when every target is met, else 1; a quick run only shows that it runs."""
    options = arguments("selection", __doc__, argv)
    worlds = 6 if options.quick else 200
    seeds = range(options.seed * 1_000_000 + 1000, options.seed * 1_000_000 + 1000 + worlds)
    outcomes = run(seeds)
    figures = summarise(outcomes)
    report("selection", figures, options.json)
    return 0 if options.quick or all(each.met is not False for each in figures) else 1


def run(seeds: Iterable[int]) -> list[Outcome]:
    """Return the outcome of each world, two processes at a time."""
    seeds = list(seeds)
    outcomes = []
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for number, outcome in enumerate(pool.map(play, seeds), 1):
            outcomes.append(outcome)
            if number % 10 == 0 or number == len(seeds):
                regret = [each.regret["shap"] for each in outcomes]
                say(f"{number} of {len(seeds)} worlds; regret so far {np.mean(regret):.5f}, worst {max(regret):.4f}")
    return outcomes


def play(seed: int) -> Outcome:
    """Return what each rule does in the world of this seed."""
    world = make_world(seed, rows=ROWS, members=MODELS)
    costs, budget = prices(world, seed)
    game = Game(world.columns, world.labels, world.groups, world.members, PARAMETERS)
    chosen, refits = {}, {}
    for rule in RULES:
        view = Counted(game)
        selection = select(view, costs, budget, rule)
        if not budget.fits(selection.kept, costs):
            raise AssertionError(f"world {seed}: {rule} chose {selection.kept}, which exceeds the budget")
        chosen[rule], refits[rule] = selection.value, selection.refits
    return Outcome({rule: chosen["exhaustive"] - value for rule, value in chosen.items()}, refits)


def prices(world: World, seed: int) -> tuple[dict[str, Cost], Budget]:
    """Return the cost of each model and a budget for 0.35 to 0.75 of the memory and of the time of all together."""
    random = np.random.default_rng([seed, 1])
    costs = {
        name: Cost(float(memory), float(time))
        for name, memory, time in zip(world.members, world.memory_mib, world.milliseconds, strict=True)
    }
    shares = random.uniform(0.35, 0.75, size=2)
    return costs, Budget(float(world.memory_mib.sum() * shares[0]), float(world.milliseconds.sum() * shares[1]))


def summarise(outcomes: list[Outcome]) -> list[Figure]:
    """Return the figures over all worlds."""
    regret = {rule: np.array([outcome.regret[rule] for outcome in outcomes]) for rule in RULES}
    refits = {rule: np.array([outcome.refits[rule] for outcome in outcomes]) for rule in RULES}
    mean, top = regret["shap"].mean(), regret["top_k"].mean()
    return [
        figure("worlds", len(outcomes), "worlds", ">= 200"),
        figure("shap: mean regret", mean, "macro F1", "<= 0.001", "top_k", top),
        figure("shap: worst regret", regret["shap"].max(), "macro F1", "<= 0.01", "top_k", regret["top_k"].max()),
        figure("top_k's mean regret over shap's", top / max(mean, 1e-9), "times", ">= 10"),
        figure(
            "shap: re-fits, share of exhaustive's", refits["shap"].sum() / refits["exhaustive"].sum(), "share",
            f"<= {1 / 3:.4f}", "greedy", refits["greedy"].sum() / refits["exhaustive"].sum(),
        ),
        figure(
            "shap: re-fits a world", refits["shap"].mean(), "re-fits", "", "exhaustive", refits["exhaustive"].mean()
        ),
        figure(
            "shap: worlds without regret", (regret["shap"] <= 0).mean(), "share", "", "top_k",
            (regret["top_k"] <= 0).mean(),
        ),
        figure("greedy: mean regret", regret["greedy"].mean(), "macro F1"),
        figure("greedy: worst regret", regret["greedy"].max(), "macro F1"),
    ]  # fmt: skip


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.exit(main())
