"""Generated worlds: pairs with labels, members of known quality that score them, and texts as long as ESCI's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from esci_tournament.tasks.data.dataset import salted_uniform
from esci_tournament.tasks.ensemble.aggregate import softmax

# Tokens of a pair in ESCI's sample by MiniLM's tokenizer: shares of the pairs, and what they have at most. 46 % have
# 256 or more; 400 for the longest is a guess that the cut at 256 makes harmless.
ESCI_TOKENS = ((0.01, 0.1, 0.25, 0.5, 0.54, 1.0), (18, 44, 89, 233, 256, 400))
FILLER = ("free", "returns", "within", "thirty", "days", "shipping", "box", "warranty", "care", "size", "contact", "us")
PRIOR = np.array([0.65, 0.22, 0.03, 0.10])  # Exact, Substitute, Complement, Irrelevant, about as in ESCI


@dataclass(frozen=True)
class World:
    """A generated data set.

    Attributes:
        columns: float32 (n, k, 4). labels: int8 (n,). groups: uint64 (n,). members: k names.
        memory_mib, milliseconds: float64 (k,), what each member costs.
    """

    columns: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    members: tuple[str, ...]
    memory_mib: np.ndarray
    milliseconds: np.ndarray


KINDS = ("plain", "duplicate", "weak", "useless")


def make_world(
    seed: int,
    rows: int = 3000,
    members: int = 8,
    factors: int = 6,
    pairs_a_query: int = 20,
    kinds: tuple[str, ...] | None = None,
) -> World:
    """Return a world whose members are near-duplicates, weak but different ones, useless ones, and plain ones.

    The label follows from `factors` latent factors (each moves the four class scores its own way) and noise. A plain
    member sees a random half of the factors well, a weak one a single factor badly, a near-duplicate what an earlier
    member sees with a little noise of its own, a useless one nothing but noise. Costs are log-normal and unrelated to
    worth.

    Args:
        seed: The same seed gives the same world.
        rows: Pairs.
        members: Models.
        factors: Latent factors that the label follows from.
        pairs_a_query: Pairs of a query on average.
        kinds: Kind of each member; default: two plain ones and then by chance.
    """
    random = np.random.default_rng(seed)
    queries = max(rows // pairs_a_query, 1)
    query = np.sort(random.integers(queries, size=rows))
    groups = random.integers(0, 2**63, size=queries, dtype=np.uint64)[query]
    # Half of each factor is shared within a query: pairs of one query are not independent
    latent = (random.normal(size=(queries, factors))[query] + random.normal(size=(rows, factors))) / np.sqrt(2)
    directions = random.normal(size=(factors, 4)) * random.uniform(0.4, 1.4, size=(factors, 1))
    utility = latent @ directions + np.log(PRIOR) * 1.2 + random.gumbel(size=(rows, 4)) * 0.8
    labels = utility.argmax(axis=1).astype(np.int8)
    columns = np.empty((rows, members, 4), dtype=np.float32)
    names: list[str] = []
    signals: list[np.ndarray] = []
    for position in range(members):
        chance = str(random.choice(KINDS, p=[0.4, 0.25, 0.22, 0.13]))
        kind = kinds[position] if kinds else "plain" if position < 2 else chance
        signal = _signal(kind, random, latent, directions, signals)
        signals.append(signal)
        names.append(f"{kind}-{position}")
        columns[:, position] = softmax(signal * random.uniform(0.6, 1.3) + np.log(PRIOR))
    memory = np.exp(random.normal(6.0, 0.7, size=members))
    milliseconds = np.exp(random.normal(3.0, 0.7, size=members))
    return World(columns, labels, groups, tuple(names), memory, milliseconds)


def _signal(
    kind: str, random: np.random.Generator, latent: np.ndarray, directions: np.ndarray, earlier: list[np.ndarray]
) -> np.ndarray:
    rows, factors = latent.shape
    if kind == "duplicate":
        return earlier[random.integers(len(earlier))] + random.normal(size=(rows, 4)) * random.uniform(0.05, 0.3)
    if kind == "useless":
        return random.normal(size=(rows, 4)) * 0.5
    if kind == "weak":
        seen, noise = random.choice(factors, size=1), random.uniform(0.6, 1.0)
    else:
        seen, noise = random.choice(factors, size=factors // 2, replace=False), random.uniform(0.3, 0.8)
    return latent[:, seen] @ directions[seen] + random.normal(size=(rows, 4)) * noise


def lengthened(products: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Add words that say nothing to the descriptions, until pairs are spread in length as ESCI's are."""
    rng = np.random.default_rng(seed)
    wanted = np.interp(rng.random(len(products)), *ESCI_TOKENS).astype(np.int64)
    words = (" ".join(rng.choice(FILLER, count)) for count in np.maximum(0, wanted - 30))
    return products.assign(description=[f"{text} {more}" for text, more in zip(products["description"], words)])  # noqa: B905


def some_queries(pairs: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """Return the pairs of as many whole queries, chosen at random, as make up about `count` pairs."""
    order = salted_uniform(pairs["query_key"].to_numpy(), f"benchmark {seed}")
    return pairs[order <= np.sort(order)[min(count, len(pairs)) - 1]]
