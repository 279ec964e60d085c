"""Whether it is worth it that an answer depends on the other pairs of its page: with and without a column for them.

The column is one more member: the mean answer of all members to the other pairs of the query, drawn towards the mean of
all pairs where the query has few. The product has no such column: labels could not be cached, members not left out
early, and a page with a missing product would be answered otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.aggregation.exercises import SAMPLE_PAIRS, Exercise, correlated, like_the_sample, of_worlds
from benchmarks.aggregation.peers import FIGURES, ours
from benchmarks.harness import Figure, figure
from esci_tournament.registry.labels import CLASSES

FRESH, DRAWN = 10_000, 2.0  # pairs to evaluate on; pairs that the mean of all counts as
METRICS = FIGURES[:3]


@dataclass(frozen=True)
class Size:
    """Worlds of one kind and size."""

    name: str
    kind: Callable[[int, int, int], Exercise]
    pairs: int
    worlds: int


SIZES = (
    Size("as hard as ESCI's sample", like_the_sample, SAMPLE_PAIRS, 30),
    Size("correlated errors", correlated, 2_500, 30),
    Size("mixed members", of_worlds, 2_500, 30),
    Size("correlated errors", correlated, 20_000, 6),
    Size("mixed members", of_worlds, 20_000, 6),
)
QUICK = (Size("as hard as ESCI's sample", like_the_sample, 500, 2),)


def measure(quick: bool, seed: int) -> Iterator[tuple[str, list[Figure]]]:
    """Yield size and kind, and what the column gains."""
    first = seed * 1_000_000 + 31_000
    for size in QUICK if quick else SIZES:
        worlds = (size.kind(one, size.pairs, FRESH) for one in range(first, first + size.worlds))
        gains = np.array([gain(world) for world in worlds])
        yield f"{size.pairs:,} pairs, {size.name}", summarise(gains)


def gain(world: Exercise) -> np.ndarray:
    """Return how far `FIGURES` rise with the column, float64 (4,)."""
    columns, fresh = with_page(world.columns, world.groups), with_page(world.fresh_columns, world.fresh_groups)
    aware = ours(replace(world, columns=columns, fresh_columns=fresh)).figures(world.fresh_labels)
    return aware - ours(world).figures(world.fresh_labels)


def with_page(columns: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return members' scores and the column of the page, float32 (n, k + 1, 4).

    Args:
        columns: float32 (n, k, 4), members' scores.
        groups: uint64 (n,), query keys.
    """
    _, query = np.unique(groups, return_inverse=True)
    answer, pairs = columns.mean(axis=1, dtype=np.float64), np.bincount(query)
    total = np.stack([np.bincount(query, answer[:, label]) for label in range(CLASSES)], axis=1)
    others = total[query] - answer + DRAWN * answer.mean(axis=0)
    mean = others / (pairs[query] - 1 + DRAWN)[:, None]
    return np.concatenate([columns, mean[:, None].astype(np.float32)], axis=1)


def summarise(gains: np.ndarray) -> list[Figure]:
    """Return the figures of worlds, float64 (worlds, 4)."""
    figures = [figure("worlds", len(gains), "worlds")]
    for place, name in enumerate(METRICS):
        points = 100 * gains[:, place]
        error = points.std(ddof=1) / np.sqrt(len(points))
        figures += [
            figure(f"{name} with the page: gain", points.mean(), "points"),
            figure(f"{name} with the page: standard error of the gain", error, "points"),
            figure(f"{name} with the page: least gain", points.min(), "points"),
        ]
    return [*figures, figure("log_loss with the page: gain", -gains[:, FIGURES.index("log_loss")].mean(), "nats")]
