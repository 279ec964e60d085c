"""The spread of the members' SHAP shares over re-fits on resampled queries, with a member of noise among them.

The shares of one fitted aggregator say how that fit uses its members. Another sample of queries gives another fit, and
other shares. So queries are drawn with replacement (a bootstrap of clusters: Davison and Hinkley 1997, "Bootstrap
Methods and their Application", section 3.8), the aggregator is fitted again on their pairs, and the shares are measured
anew. How it is fitted (penalties, mixture, rounds, one member alone) is chosen by cross-validation on some of these
draws, and each choice is used in several: choices differ from sample to sample too, and cross-validation is what takes
time.

In each re-fit one more member takes part. Its scores are those of a real member, shuffled over the pairs: they look
like a model's and know nothing of the pair. Its share is what a member is credited with by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import t as student

from esci_tournament.registry.errors import UsageError
from esci_tournament.tasks.ensemble.aggregate import AggregatorParameters, check_shapes
from esci_tournament.tasks.ensemble.attribution import utilities
from esci_tournament.tasks.ensemble.fitting import Choice, canonical_order, cross_validate, fit_aggregator
from esci_tournament.tasks.ensemble.value import whole_queries

REFITS = 24
_FOLDS = 2  # of these cross-validations: they take a quarter of the time of five
CHOICES = 6  # draws on which cross-validation chooses how the aggregator is fitted
MOST_PAIRS = 20_000  # pairs that the queries of a re-fit are drawn from
_NOISE = "noise"


@dataclass(frozen=True)
class Refits:
    """The shares of the members in each of b re-fits, 0 to 1.

    Attributes:
        members: k names.
        shares: float64 (b, k), among the members alone; each row adds up to 1.
        beside_noise: float64 (b, k), among the members and the member of noise.
        noise: float64 (b,), the share of the latter; with `beside_noise` it adds up to 1.
        scale: what a deviation over re-fits is multiplied by. It is 1, or below where the queries were drawn from
            some of those there are: the root of the share drawn from.
    """

    members: tuple[str, ...]
    shares: np.ndarray
    beside_noise: np.ndarray
    noise: np.ndarray
    scale: float = 1.0

    def errors(self) -> np.ndarray:
        """Return the standard error of each member's share, float64 (k,)."""
        return self.scale * self.shares.std(axis=0, ddof=1)

    def quantile(self, level: float) -> float:
        """Return how many standard errors an estimate may be off with probability `level`, one-sided: Student's."""
        return float(student.isf(level, len(self.noise) - 1))

    def noise_at_most(self, level: float) -> float:
        """Return what the share of noise exceeds with probability `level`, 0 to 1: mean and deviation over re-fits."""
        return min(float(self.noise.mean() + self.quantile(level) * self.noise.std(ddof=1)), 1.0)

    def above_noise(self, level: float) -> np.ndarray:
        """Return whether each member's share is above that of noise, bool (k,), at a one-sided level of each."""
        ahead = self.beside_noise - self.noise[:, None]
        return np.asarray(ahead.mean(axis=0) > self.quantile(level) * self.scale * ahead.std(axis=0, ddof=1))


def refit(
    columns: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    members: Sequence[str],
    parameters: AggregatorParameters,
    choice: Choice,
    *,
    refits: int = REFITS,
    choices: int = CHOICES,
    seed: int = 0,
    maximum_rows: int | None = MOST_PAIRS,
    heard: Callable[[int, int], None] = lambda done, of: None,
) -> Refits:
    """Fit the aggregator again and again on resampled queries, and return the shares of its members.

    Args:
        columns: float32 (n, k, 4), the out-of-sample scores that it was fitted on.
        labels: int8 (n,), index into `LABELS`.
        groups: uint64 (n,), query keys.
        members: k names.
        parameters: of the aggregator; as many fits run side by side as it has threads.
        choice: how it was fitted; used where a draw has too few queries for cross-validation.
        refits: how many, two at least.
        choices: cross-validations, each on a draw of its own.
        seed: of the draws.
        maximum_rows: pairs that the queries are drawn from at most; None for all.
        heard: called after each fit with how many are done, and of how many.

    Returns:
        The shares, which depend neither on the order of the rows nor on threads.

    Raises:
        UsageError: if shapes do not fit.
    """
    check_shapes(columns, labels, groups, members)
    queries = len(np.unique(groups))
    order = canonical_order(columns, labels, groups)
    order = order[whole_queries(groups[order], maximum_rows)]
    columns, labels, groups = columns[order], labels[order], groups[order]
    first = np.append(np.unique(groups, return_index=True)[1], len(groups))  # rows of a query stand together
    names, one_thread = (*members, _NOISE), replace(parameters, threads=1)

    def draw(number: int) -> np.ndarray:
        drawn = np.random.default_rng([seed, number]).integers(len(first) - 1, size=len(first) - 1)
        return np.concatenate([np.arange(first[query], first[query + 1]) for query in drawn])

    def choose(number: int) -> Choice:
        rows = draw(number)
        try:
            return cross_validate(columns[rows], labels[rows], groups[rows], replace(one_thread, folds=_FOLDS)).choice
        except UsageError:  # a fold without a query
            return choice

    with ThreadPoolExecutor(max(parameters.threads, 1)) as pool:
        chosen = list(pool.map(choose, range(min(choices, refits))))

        def once(number: int) -> list[float]:
            rows = draw(number)
            random = np.random.default_rng([seed, number, 1])
            noise = columns[random.permutation(rows), number % len(members)]
            both = np.concatenate([columns[rows], noise[:, None]], axis=1)
            how = chosen[number % len(chosen)]
            credit = utilities(fit_aggregator(both, labels[rows], groups[rows], names, one_thread, how), both)
            return [credit[name] for name in names]

        shares = []
        for share in pool.map(once, range(refits)):
            shares.append(share)
            heard(len(shares), refits)
        found = np.array(shares)
    among = found[:, :-1]
    whole = np.maximum(among.sum(axis=1, keepdims=True), 1e-300)
    return Refits(tuple(members), among / whole, among, found[:, -1], float(np.sqrt((len(first) - 1) / queries)))
