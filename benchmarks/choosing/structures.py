"""Worlds of other structures than `benchmarks.worlds.make_world`: what members have in common, and what they cost.

The rule of selection was built on worlds of `make_world` alone; these show whether it carries over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from benchmarks.worlds import PRIOR, World
from esci_tournament.tasks.ensemble.aggregate import softmax

_PAIRS_A_QUERY = 20


def copies(random: np.random.Generator, evidence: np.ndarray, members: int) -> tuple[np.ndarray, np.ndarray]:
    """Few originals, and many near-copies of each at other costs."""
    rows, factors, _ = evidence.shape
    originals = max(members // 4, 2)
    seen = [random.choice(factors, size=3, replace=False) for _ in range(originals)]
    bases = [evidence[:, some].sum(axis=1) + random.normal(size=(rows, 4)) * 0.5 for some in seen]
    source = np.arange(members) % originals
    noise = random.uniform(0.1, 0.7, size=members)
    signals = [bases[s] + random.normal(size=(rows, 4)) * n for s, n in zip(source, noise, strict=True)]
    return np.stack(signals, axis=1), np.exp(random.normal(0.0, 0.9, size=members))


def companions(random: np.random.Generator, evidence: np.ndarray, members: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of which one sees evidence under a disturbance, and the other the disturbance alone: they pay together."""
    rows, factors, _ = evidence.shape
    signals = []
    for _ in range(-(-members // 2)):
        some = random.choice(factors, size=2, replace=False)
        disturbance = random.normal(size=(rows, 4)) * random.uniform(0.8, 1.6)
        signals.append(evidence[:, some].sum(axis=1) + disturbance + random.normal(size=(rows, 4)) * 0.2)
        signals.append(disturbance + random.normal(size=(rows, 4)) * random.uniform(0.1, 0.4))
    order = random.permutation(len(signals))[:members]
    return np.stack(signals, axis=1)[:, order], np.exp(random.normal(0.0, 0.7, size=members))


def blocks(random: np.random.Generator, evidence: np.ndarray, members: int) -> tuple[np.ndarray, np.ndarray]:
    """Every member sees one factor; members of a block see the same one with noises of their own."""
    rows, factors, _ = evidence.shape
    seen = np.arange(members) % factors
    noise = random.uniform(0.3, 1.2, size=members)
    signals = [evidence[:, s] + random.normal(size=(rows, 4)) * n for s, n in zip(seen, noise, strict=True)]
    return np.stack(signals, axis=1), np.exp(random.normal(0.0, 0.7, size=members))


def graded(random: np.random.Generator, evidence: np.ndarray, members: int) -> tuple[np.ndarray, np.ndarray]:
    """Members from nearly useless to good, at costs that rise with what they see."""
    rows, factors, _ = evidence.shape
    signals, costs = [], []
    for _ in range(members):
        count = int(random.integers(0, 5))
        some = random.choice(factors, size=count, replace=False)
        noise = random.uniform(0.3, 0.9)
        signals.append(evidence[:, some].sum(axis=1) + random.normal(size=(rows, 4)) * noise)
        costs.append((0.3 + count / noise) * np.exp(random.normal(0.0, 0.3)))
    return np.stack(signals, axis=1), np.array(costs)


Structure = Callable[[np.random.Generator, np.ndarray, int], tuple[np.ndarray, np.ndarray]]
STRUCTURES: dict[str, Structure] = {"copies": copies, "companions": companions, "blocks": blocks, "graded": graded}


def split(world: World, rows: int) -> tuple[World, World]:
    """Return about the first `rows` pairs of a world, and the others; no query is in both."""
    cut = int(np.flatnonzero(world.groups == world.groups[rows])[0])
    first, others = (
        replace(world, columns=world.columns[part], labels=world.labels[part], groups=world.groups[part])
        for part in (slice(cut), slice(cut, None))
    )
    return first, others


def make_structured(structure: str, seed: int, rows: int = 3000, members: int = 14, factors: int = 7) -> World:
    """Return a world of one structure.

    Args:
        structure: one of `STRUCTURES`.
        seed: The same seed gives the same world.
        rows: Pairs.
        members: Models.
        factors: Latent factors that the label follows from.
    """
    random = np.random.default_rng([seed, sum(structure.encode())])
    queries = max(rows // _PAIRS_A_QUERY, 1)
    query = np.sort(random.integers(queries, size=rows))
    groups = random.integers(0, 2**63, size=queries, dtype=np.uint64)[query]
    latent = (random.normal(size=(queries, factors))[query] + random.normal(size=(rows, factors))) / np.sqrt(2)
    directions = random.normal(size=(factors, 4)) * random.uniform(0.5, 1.3, size=(factors, 1))
    evidence = latent[:, :, None] * directions  # (rows, factors, 4)
    utility = evidence.sum(axis=1) + np.log(PRIOR) * 1.2 + random.gumbel(size=(rows, 4)) * 0.7
    signals, costs = STRUCTURES[structure](random, evidence, members)
    columns = softmax(signals * random.uniform(0.6, 1.3, size=(1, members, 1)) + np.log(PRIOR)).astype(np.float32)
    memory = 400 * costs * np.exp(random.normal(0.0, 0.3, size=members))
    milliseconds = 20 * costs * np.exp(random.normal(0.0, 0.5, size=members))
    names = tuple(f"{structure}-{place}" for place in range(members))
    return World(columns, utility.argmax(axis=1).astype(np.int8), groups, names, memory, milliseconds)
