"""The worth of each member of an ensemble: group SHAP shares with intervals, per class, per locale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.stats import norm

from esci_tournament.registry.errors import UsageError
from esci_tournament.registry.labels import LABELS
from esci_tournament.tasks.ensemble.aggregate import Aggregator, flatten
from esci_tournament.tasks.ensemble.attribution import Forest, attribute_rows, check_additivity, tabulate

_FIRST_BATCH = 256
_GROWTH = 1.5


@dataclass(frozen=True)
class MemberWorth:
    """Worth of one member: its share of what all members together move the scores by; shares add up to 1 over members.

    Attributes:
        member: its name.
        utility: its share, 0 to 1.
        low: lower end of the share's interval, by bootstrap over queries.
        high: upper end of the interval.
        by_class: share within each class E, S, C, I.
        by_locale: share within each locale.
    """

    member: str
    utility: float
    low: float
    high: float
    by_class: dict[str, float]
    by_locale: dict[str, float]


@dataclass(frozen=True)
class Worth:
    """Worth of all members, the most useful first.

    Attributes:
        members: one entry a member, by falling utility.
        rows: number of pairs used.
        rows_available: number of pairs there were.
        settled: True when every neighbour in the ranking is told apart at `confidence`, or no pair was left to draw.
        confidence: of the intervals and of the ranking, 0 to 1.
        additivity_gap: largest gap between base + contributions and raw scores, as a share of the largest score.
        tied: neighbours in the ranking that the pairs used cannot tell apart.
    """

    members: tuple[MemberWorth, ...]
    rows: int
    rows_available: int
    settled: bool
    confidence: float
    additivity_gap: float
    tied: tuple[tuple[str, str], ...]

    @property
    def ranking(self) -> tuple[str, ...]:
        """Names, the most useful first."""
        return tuple(entry.member for entry in self.members)

    def utility(self) -> dict[str, float]:
        """Return the utility of each member, name -> share from 0 to 1."""
        return {entry.member: entry.utility for entry in self.members}


def measure_worth(
    aggregator: Aggregator,
    columns: np.ndarray,
    groups: np.ndarray,
    locales: Sequence[str] | np.ndarray,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    threads: int = 1,
    until_settled: bool = False,
) -> Worth:
    """Return what each member is worth on these pairs.

    Args:
        aggregator: the ensemble's aggregator.
        columns: float32 (n, k, 4), member scores.
        groups: uint64 (n,), query keys.
        locales: str (n,).
        confidence: of the intervals, and of the ranking when `until_settled`.
        resamples: bootstrap resamples of queries.
        seed: of the bootstrap and of the order in which queries are drawn.
        threads: threads to use; they do not change the result.
        until_settled: draw queries at random until the order of the members is settled, or the pairs run out.

    Returns:
        The worth of all members.

    Raises:
        TournamentError: if the contributions do not add up to the scores.
        UsageError: if there is no pair.
    """
    if not len(columns):
        raise UsageError("no pair to measure the members' worth on; pass the pairs the aggregator learnt from")
    forest = tabulate(aggregator)
    draw = _query_order(groups, seed)
    used, settled, values = _draw(aggregator, forest, columns, groups, draw, confidence, threads, until_settled)
    gap = check_additivity(aggregator, columns[used], values, forest.base)
    strength = np.abs(values)
    keys, query = np.unique(groups[used], return_inverse=True)
    by_query = _sum_by(query, strength.sum(axis=1), len(keys))
    shares = _shares(by_query.sum(axis=0))
    low, high = _bootstrap(by_query, confidence, resamples, seed)
    by_class = np.stack([_shares(strength[:, label].sum(axis=0)) for label in range(len(LABELS))])
    places = np.asarray(locales)[used].astype(str)
    by_locale = {place: _shares(strength[places == place].sum(axis=(0, 1))) for place in sorted(set(places.tolist()))}
    order = np.lexsort((np.array(aggregator.members), -shares))
    entries = tuple(
        MemberWorth(
            aggregator.members[m], float(shares[m]), float(low[m]), float(high[m]),
            {label: float(by_class[position, m]) for position, label in enumerate(LABELS)},
            {place: float(share[m]) for place, share in by_locale.items()},
        )
        for m in order
    )  # fmt: skip
    undecided = _undecided(by_query, _separation(confidence, len(shares), 1))
    tied = tuple((aggregator.members[a], aggregator.members[b]) for a, b in undecided)
    return Worth(entries, len(used), len(columns), settled, confidence, gap, tied)


def utilities(
    aggregator: Aggregator, columns: np.ndarray, threads: int = 1, rows: int | None = 2000, seed: int = 0
) -> dict[str, float]:
    """Return the utility of each member, without intervals; selection calls it at each step.

    Args:
        aggregator: the ensemble's aggregator.
        columns: float32 (n, k, 4), member scores.
        threads: threads to use; they do not change the result.
        rows: pairs used at most, drawn at random; None for all.
        seed: of the draw.

    Returns:
        Name -> share; the shares sum to 1.

    Raises:
        TournamentError: if the contributions do not add up to the scores.
    """
    if rows is not None and len(columns) > rows:
        columns = columns[np.sort(np.random.default_rng(seed).choice(len(columns), rows, replace=False))]
    forest = tabulate(aggregator)
    values = attribute_rows(forest, flatten(columns, aggregator.members), threads)
    check_additivity(aggregator, columns, values, forest.base)
    shares = _shares(np.abs(values).sum(axis=(0, 1)))
    return dict(zip(aggregator.members, shares.tolist(), strict=True))


def _draw(
    aggregator: Aggregator, forest: Forest, columns: np.ndarray, groups: np.ndarray, draw: np.ndarray,
    confidence: float, threads: int, until_settled: bool,
) -> tuple[np.ndarray, bool, np.ndarray]:  # fmt: skip
    """Return the rows used, whether the ranking is settled, and their contributions."""
    if not until_settled:
        return draw, True, attribute_rows(forest, flatten(columns[draw], aggregator.members), threads)
    stops = [_FIRST_BATCH]
    while stops[-1] < len(draw):
        stops.append(int(stops[-1] * _GROWTH) + 1)
    # A query is drawn whole: its first pairs alone would bias the ranking
    boundary = np.flatnonzero(np.append(groups[draw][1:] != groups[draw][:-1], True)) + 1
    separation = _separation(confidence, forest.groups, len(stops))
    parts: list[np.ndarray] = []
    done, settled = 0, False
    for asked in stops:
        stop = int(boundary[min(int(np.searchsorted(boundary, min(asked, len(draw)))), len(boundary) - 1)])
        if stop > done:
            batch = flatten(columns[draw[done:stop]], aggregator.members)
            parts.append(attribute_rows(forest, batch, threads))
            done = stop
        strength = np.abs(np.concatenate(parts)).sum(axis=1)
        keys, query = np.unique(groups[draw[:done]], return_inverse=True)
        settled = not _undecided(_sum_by(query, strength, len(keys)), separation)
        if settled or done == len(draw):
            break
    return draw[:done], settled or done == len(draw), np.concatenate(parts)


def _query_order(groups: np.ndarray, seed: int) -> np.ndarray:
    """Return the rows with whole queries in a random order, int64 (n,)."""
    keys, query = np.unique(groups, return_inverse=True)
    rank = np.random.default_rng(seed).permutation(len(keys))
    return np.argsort(rank[query], kind="stable")


def _separation(confidence: float, members: int, looks: int) -> float:
    """Return the number of standard errors that neighbours must differ by; Bonferroni over neighbours and looks."""
    comparisons = max(members - 1, 1) * max(looks, 1)
    return float(norm.isf((1 - confidence) / 2 / comparisons))


def _undecided(by_query: np.ndarray, separation: float) -> list[tuple[int, int]]:
    """Return the neighbours in the ranking whose difference is within `separation` standard errors."""
    order = np.argsort(-by_query.sum(axis=0), kind="stable")
    pairs = []
    for better, worse in pairwise(order):
        difference = by_query[:, better] - by_query[:, worse]
        error = difference.std(ddof=1) * np.sqrt(len(difference)) if len(difference) > 1 else np.inf
        if not difference.sum() > separation * error:
            pairs.append((int(better), int(worse)))
    return pairs


def _bootstrap(by_query: np.ndarray, confidence: float, resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    queries = len(by_query)
    drawn = np.empty((resamples, by_query.shape[1]))
    for start in range(0, resamples, 50):
        stop = min(start + 50, resamples)
        weights = np.stack(
            [np.bincount(random.integers(queries, size=queries), minlength=queries) for _ in range(start, stop)]
        )
        drawn[start:stop] = weights @ by_query
    shares = drawn / np.maximum(drawn.sum(axis=1, keepdims=True), 1e-300)
    tail = (1 - confidence) / 2
    return np.quantile(shares, tail, axis=0), np.quantile(shares, 1 - tail, axis=0)


def _sum_by(index: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    return np.stack([np.bincount(index, weights=column, minlength=size) for column in values.T], axis=1)


def _shares(totals: np.ndarray) -> np.ndarray:
    whole = totals.sum()
    return totals / whole if whole > 0 else np.full(len(totals), 1 / len(totals))
