"""The best set within a budget in a cheap game: of every set up to 16 models, of a search of many thousands above."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from benchmarks.choosing.games import LinearGame, every_set
from benchmarks.worlds import World
from esci_tournament.tasks.ensemble.budget import Budget

MOST_EXHAUSTIVE = 16
_STARTS = 300
_PARENTS = 12


def best_set(
    game: LinearGame, world: World, budget: Budget, found: Iterable[Iterable[str]], seed: int
) -> tuple[tuple[str, ...], float]:
    """Return the best set within the budget, and its value.

    Args:
        game: The values.
        world: The models and their costs, which add up.
        budget: Limits on memory and time.
        found: Sets that rules chose; the search starts from these too.
        seed: Of the search.

    Returns:
        The best of all sets with up to 16 models; with more, the best of those that the search or a rule found.
    """
    count = len(world.members)
    if count <= MOST_EXHAUSTIVE:
        rows = every_set_within(world, budget)
        return _best(world, rows, game.values_of(rows))
    random = np.random.default_rng([seed, 2])
    rows = np.array([[name in members for name in world.members] for members in found])
    rows = np.vstack([rows, _full(random, world, budget, _STARTS)])
    rows = rows[_within(rows, world, budget)]
    values = game.values_of(rows)
    opened: set[bytes] = set()
    while True:  # open the best sets that were not opened yet, until the neighbours of the best ones are all known
        order = np.argsort(-values, kind="stable")[:_PARENTS]
        parents = [place for place in order if rows[place].tobytes() not in opened]
        if not parents:
            return _best(world, rows, values)
        opened |= {rows[place].tobytes() for place in parents}
        near = np.unique(np.vstack([_neighbours(rows[place]) for place in parents]), axis=0)
        near = near[_within(near, world, budget)]
        rows, values = np.vstack([rows, near]), np.concatenate([values, game.values_of(near)])
        rows, kept = np.unique(rows, axis=0, return_index=True)
        values = values[kept]


def every_set_within(world: World, budget: Budget) -> np.ndarray:
    """Return every set of models within the budget, bool (m, models)."""
    sets = every_set(len(world.members))
    return sets[_within(sets, world, budget)]


def _best(world: World, rows: np.ndarray, values: np.ndarray) -> tuple[tuple[str, ...], float]:
    place = int(values.argmax())
    return tuple(name for name, inside in zip(world.members, rows[place], strict=True) if inside), float(values[place])


def _within(sets: np.ndarray, world: World, budget: Budget) -> np.ndarray:
    sums = sets.astype(np.float64)
    memory, time = budget.memory_mib or np.inf, budget.latency_ms or np.inf
    fits = (sums @ world.memory_mib <= memory) & (sums @ world.milliseconds <= time)
    return np.asarray(fits & sets.any(axis=1))


def _full(random: np.random.Generator, world: World, budget: Budget, count: int) -> np.ndarray:
    """Return sets to which models were added in random order as long as they fit."""
    rows = np.zeros((count, len(world.members)), dtype=bool)
    for column in np.argsort(random.random(rows.shape), axis=1).T:
        larger = rows.copy()
        larger[np.arange(count), column] = True
        fits = _within(larger, world, budget)
        rows[fits] = larger[fits]
    return rows


def _neighbours(row: np.ndarray) -> np.ndarray:
    """Return all sets that differ in one or two models."""
    one = np.eye(len(row), dtype=bool)
    first, second = np.triu_indices(len(row), 1)
    return np.vstack([row ^ one, row ^ one[first] ^ one[second]])
