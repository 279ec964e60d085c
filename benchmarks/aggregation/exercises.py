"""Generated pairs to fit an aggregator on, and fresh pairs of other queries to evaluate it on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from benchmarks.worlds import make_world
from esci_tournament.registry.labels import CLASSES
from esci_tournament.tasks.ensemble.aggregate import softmax

PAIRS_A_QUERY = 10
ESCI_SHARES = (0.65, 0.22, 0.03, 0.10)  # Exact, Substitute, Complement, Irrelevant, about as in ESCI
SAMPLE_SHARES = (0.60, 0.20, 0.05, 0.15)  # about as in the sample of ESCI
SAMPLE_PAIRS, SAMPLE_ACCURACY = 2_300, 0.52  # pairs to learn from, and the accuracy of the best member there
ORDINAL_PAIRS, ORDINAL_QUERIES, ORDINAL_FRESH = 5_500, (1_200, 1_500), 9_000
CEILING = (0.46, 0.48)  # accuracy of who knows all that can be known
GRADES = (
    (0.45, 0.20, 0.15, 0.20), (0.40, 0.25, 0.10, 0.25), (0.35, 0.30, 0.15, 0.20), (0.30, 0.30, 0.20, 0.20),
    (0.25, 0.25, 0.25, 0.25), (0.20, 0.35, 0.30, 0.15),
)  # fmt: skip


@dataclass(frozen=True)
class Exercise:
    """Members' scores, labels and query keys of the pairs to learn from and of the fresh ones.

    Attributes:
        columns, fresh_columns: float32 (n, k, 4). labels, fresh_labels: int8 (n,). groups, fresh_groups: uint64 (n,).
        facts: what the world was made with, for whoever looks into one.
    """

    columns: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    fresh_columns: np.ndarray
    fresh_labels: np.ndarray
    fresh_groups: np.ndarray
    facts: dict[str, object]

    @property
    def members(self) -> tuple[str, ...]:
        return tuple(f"member-{position}" for position in range(self.columns.shape[1]))


class Draw:
    """Random numbers for pairs in queries; a part of what is drawn for a pair is shared within its query."""

    def __init__(self, random: np.random.Generator, rows: Sequence[int], queries: Sequence[int]) -> None:
        self.random = random
        parts, first = [], 0
        for count, some in zip(rows, queries, strict=True):
            # Queries differ in length: gamma-distributed weights
            weights = random.gamma(3.0, size=some)
            parts.append(first + np.sort(random.choice(some, size=count, p=weights / weights.sum())))
            first += some
        self.query, self.queries, self.learnt = np.concatenate(parts), first, rows[0]
        self.groups = random.integers(0, 2**63, size=first, dtype=np.uint64)[self.query]

    def normal(self, shared: float, width: int = 1) -> np.ndarray:
        """Return standard normal numbers, (n, width), with `shared` of the variance common to a query's pairs."""
        common = self.random.normal(size=(self.queries, width))[self.query]
        return np.sqrt(shared) * common + np.sqrt(1 - shared) * self.random.normal(size=(len(self.query), width))

    def exercise(self, columns: Sequence[np.ndarray], labels: np.ndarray, facts: dict[str, object]) -> Exercise:
        """Return the exercise of members' scores, k times (n, 4)."""
        scores, labels, cut = np.stack(columns, axis=1).astype(np.float32), labels.astype(np.int8), self.learnt
        learnt = scores[:cut], labels[:cut], self.groups[:cut]
        return Exercise(*learnt, scores[cut:], labels[cut:], self.groups[cut:], facts)


def one_knows_all(seed: int, pairs: int = ORDINAL_PAIRS) -> Exercise:
    """Return a world of ordinal labels in which one member knows nearly all that any member knows.

    A pair's grade, from Exact to Irrelevant, is where a latent number falls between cuts. The share of it that can be
    known makes an accuracy of 0.46 to 0.48 the best possible. The dominant member sees that share nearly as it is; the
    others see it behind noise, which they partly have in common. Every member believes more in what it sees than it
    should. Its probabilities are those of an ordered probit with that belief; half of the dominant members and half of
    the others were trained with class weights, which tilts them towards rare grades.
    """
    random = np.random.default_rng(seed)
    shares = random.dirichlet(300 * np.array(GRADES[random.integers(len(GRADES))]))
    cuts = norm.ppf(np.cumsum(shares)[:-1])
    ceiling = max(random.uniform(*CEILING), float(shares.max()) + 0.01)
    known = float(brentq(lambda part: best_accuracy(part, cuts) - ceiling, 0.01, 0.99))
    length = ORDINAL_PAIRS / random.integers(ORDINAL_QUERIES[0], ORDINAL_QUERIES[1] + 1)  # of a query, in pairs
    draw = Draw(random, (pairs, ORDINAL_FRESH), (round(pairs / length), round(ORDINAL_FRESH / length)))
    seen, unseen = draw.normal(random.uniform(0.1, 0.5)), draw.normal(random.uniform(0.0, 0.3))
    labels = np.searchsorted(cuts, (known * seen + np.sqrt(1 - known**2) * unseen)[:, 0])
    common, members = draw.normal(0.3), int(random.integers(2, 7)) + 1
    columns, facts = [], {"shares": shares, "known": known, "ceiling": ceiling, "length": length}
    for member in range(members):
        ruling = member == 0
        fidelity = random.uniform(0.97, 1.0) if ruling else random.uniform(0.2, 0.6)
        noise = np.sqrt(likeness := random.uniform(0.0, 0.5)) * common + np.sqrt(1 - likeness) * draw.normal(0.3)
        view = fidelity * seen + np.sqrt(1 - fidelity**2) * noise
        stretch, sharper = random.uniform(1.0, 1.8 if ruling else 3.0), random.uniform(1.0, 1.8 if ruling else 2.5)
        tilt = random.uniform(0.3, 0.8) * (random.random() < 0.5)
        spread = np.sqrt(1 - (known * fidelity) ** 2) / sharper
        columns.append(ordered_probit(stretch * known * view, spread, cuts, shares**-tilt))
        columns[-1] = softmax(np.log(columns[-1]) + draw.normal(0.0, CLASSES) * random.uniform(0.0, 0.2))
        if ruling:
            facts |= {"fidelity": fidelity, "stretch": stretch, "sharper": sharper, "tilt": tilt}
    place = random.permutation(members)
    return draw.exercise([columns[one] for one in place], labels, facts | {"members": members})


def ordered_probit(centre: np.ndarray, spread: float, cuts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the probability of each grade, float64 (n, 4), times its weight, for latent numbers of some spread."""
    below = norm.cdf((np.concatenate([[-np.inf], cuts, [np.inf]]) - centre) / spread)
    found = np.maximum(np.diff(below, axis=1), 1e-9) * weights
    return found / found.sum(axis=1, keepdims=True)


def best_accuracy(known: float, cuts: np.ndarray) -> float:
    """Return the accuracy of always answering the most probable grade, if a part of the latent number is known."""
    points, weights = np.polynomial.hermite_e.hermegauss(101)
    shares = ordered_probit(known * points[:, None], np.sqrt(1 - known**2), cuts, np.ones(CLASSES))
    return float(weights @ shares.max(axis=1) / weights.sum())


def correlated(seed: int, pairs: int, fresh: int, members: int = 6) -> Exercise:
    """Return a world of members whose errors share two factors, each with a distortion and temperature of its own."""
    return _correlated(np.random.default_rng(seed), pairs, fresh, members, ESCI_SHARES, (0.0, 0.0), None)


def like_the_sample(seed: int, pairs: int, fresh: int, members: int = 6) -> Exercise:
    """Return a world as hard as the sample of ESCI, of members trained with class weights.

    The best of them is right about 52 of 100 pairs, and 60 are Exact.
    """
    random = np.random.default_rng(seed)
    return _correlated(random, pairs, fresh, members, SAMPLE_SHARES, (0.4, 0.9), SAMPLE_ACCURACY)


def _correlated(
    random: np.random.Generator, pairs: int, fresh: int, members: int, shares: tuple[float, ...],
    tilts: tuple[float, float], accuracy: float | None,
) -> Exercise:  # fmt: skip
    draw = Draw(random, (pairs, fresh), (pairs // PAIRS_A_QUERY, fresh // PAIRS_A_QUERY))
    signal = draw.normal(0.4, 5) @ (random.normal(size=(5, CLASSES)) * random.uniform(0.4, 1.2, size=(5, 1)))
    wanted, chance, bias = np.array(shares), random.gumbel(size=signal.shape) * 0.7, np.log(shares)
    for _ in range(30):  # until the classes have their shares
        labels = (signal + bias + chance).argmax(axis=1)
        bias = bias + np.log(wanted / np.maximum(np.bincount(labels, minlength=CLASSES) / len(labels), 1e-4))
    labels = (signal + bias + chance).argmax(axis=1)
    common = [draw.normal(0.3, CLASSES) for _ in range(2)]
    errors, scales, shifts = [], [], []
    for _ in range(members):
        loads = random.uniform(0.0, 0.65, size=2)  # of the common factors; the rest is the member's own
        own = draw.normal(0.3, CLASSES) * np.sqrt(1 - (loads**2).sum())
        errors.append((loads[0] * common[0] + loads[1] * common[1] + own) * random.uniform(0.8, 1.5))
        scales.append(random.uniform(0.6, 1.4, size=CLASSES) / np.exp(random.uniform(np.log(0.5), np.log(2.0))))
        tilt = random.uniform(*tilts)
        shifts.append(bias - tilt * np.log(shares) + random.normal(0, 0.3, size=CLASSES))

    def scores(strength: float) -> list[np.ndarray]:
        parts = zip(errors, scales, shifts, strict=True)
        return [softmax((signal + strength * error + shift) * scale) for error, scale, shift in parts]

    def gap(strength: float) -> float:
        return max(float((one.argmax(axis=1) == labels).mean()) for one in scores(strength)) - (accuracy or 0)

    strength = 1.0
    if accuracy is not None:
        strength = float(brentq(gap, 0.0, 8.0, xtol=0.02)) if gap(0.0) > 0 > gap(8.0) else 0.0 if gap(0.0) < 0 else 8.0
    return draw.exercise(scores(strength), labels, {"strength": strength})


def of_worlds(seed: int, pairs: int, fresh: int, members: int = 6) -> Exercise:
    """Return a world of `benchmarks.worlds`: plain members, near-duplicates, weak and useless ones."""
    world = make_world(seed, rows=pairs + fresh, members=members, pairs_a_query=PAIRS_A_QUERY)
    queries = np.unique(world.groups)
    known = np.isin(world.groups, queries[: round(len(queries) * pairs / (pairs + fresh))])
    learnt, fresh = ((world.columns[rows], world.labels[rows], world.groups[rows]) for rows in (known, ~known))
    return Exercise(*learnt, *fresh, {"members": world.members})
