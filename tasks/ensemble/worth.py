"""The worth of each member of an ensemble: group SHAP shares, per class, per locale, with intervals over re-fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.stats import norm

from esci_tournament.registry.errors import UsageError
from esci_tournament.registry.labels import LABELS
from esci_tournament.tasks.ensemble.aggregate import Aggregator, flatten
from esci_tournament.tasks.ensemble.attribution import Forest, as_shares, attribute_rows, check_additivity, tabulate
from esci_tournament.tasks.ensemble.refits import Refits

_FIRST_BATCH = 256
_GROWTH = 1.5
_NOISE_LEVEL = 0.05


@dataclass(frozen=True)
class MemberWorth:
    """Worth of one member: its share of what all members together move the scores by; shares add up to 1 over members.

    Attributes:
        member: its name.
        utility: its share, 0 to 1.
        low: lower end of the share's interval over re-fits on resampled queries; None without re-fits.
        high: upper end of the interval.
        by_class: share within each class E, S, C, I.
        by_locale: share within each locale.
        above_noise: whether the share is above that of a member of noise, at one-sided 5 %; None without re-fits.
    """

    member: str
    utility: float
    low: float | None
    high: float | None
    by_class: dict[str, float]
    by_locale: dict[str, float]
    above_noise: bool | None = None


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
        tied: neighbours in the ranking that cannot be told apart: over re-fits, or, without them, of this one fit by
            the pairs used.
        noise: mean share of a member of noise beside the members, 0 to 1; None without re-fits.
        noise_high: what that share exceeds in one of twenty re-fits.
        refits: number of re-fits.
    """

    members: tuple[MemberWorth, ...]
    rows: int
    rows_available: int
    settled: bool
    confidence: float
    additivity_gap: float
    tied: tuple[tuple[str, str], ...]
    noise: float | None = None
    noise_high: float | None = None
    refits: int = 0

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
    refits: Refits | None = None,
    confidence: float = 0.95,
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
        refits: what :func:`~esci_tournament.tasks.ensemble.refits.refit` found on the same pairs, for intervals; None
            for shares alone.
        confidence: of the intervals and of the ranking.
        seed: of the order in which queries are drawn.
        threads: threads to use; they do not change the result.
        until_settled: draw queries at random until the order of the members, as this one fit uses them, is settled, or
            the pairs run out.

    Returns:
        The worth of all members.

    Raises:
        TournamentError: if the contributions do not add up to the scores.
        UsageError: if there is no pair, or the re-fits are of other members.
    """
    if not len(columns):
        raise UsageError("no pair to measure the members' worth on; pass the pairs the aggregator learnt from")
    if refits is not None and refits.members != aggregator.members:
        raise UsageError(
            f"re-fits of {', '.join(refits.members)} for an aggregator of {', '.join(aggregator.members)}; re-fit the "
            "aggregator's own members in their order"
        )
    forest = tabulate(aggregator)
    draw = _query_order(groups, seed)
    used, settled, values = _draw(aggregator, forest, columns, groups, draw, confidence, threads, until_settled)
    gap = check_additivity(aggregator, columns[used], values, forest.base)
    strength = np.abs(values)
    keys, query = np.unique(groups[used], return_inverse=True)
    by_query = _sum_by(query, strength.sum(axis=1), len(keys))
    credit = as_shares(by_query.sum(axis=0))
    by_class = np.stack([as_shares(strength[:, label].sum(axis=0)) for label in range(len(LABELS))])
    places = np.asarray(locales)[used].astype(str)
    by_locale = {place: as_shares(strength[places == place].sum(axis=(0, 1))) for place in sorted(set(places.tolist()))}
    order = np.lexsort((np.array(aggregator.members), -credit))
    spread = [_over_refits(refits, m, float(credit[m]), confidence) for m in range(len(credit))]
    entries = tuple(
        MemberWorth(
            aggregator.members[m], float(credit[m]), spread[m][0], spread[m][1],
            {label: float(by_class[position, m]) for position, label in enumerate(LABELS)},
            {place: float(share[m]) for place, share in by_locale.items()},
            spread[m][2],
        )
        for m in order
    )  # fmt: skip
    if refits is None:
        undecided = _undecided(by_query, _separation(confidence, len(credit), 1))
    else:
        undecided = _undecided_over(refits, order.tolist(), credit, confidence)
    return Worth(
        entries,
        len(used),
        len(columns),
        settled,
        confidence,
        gap,
        tuple((aggregator.members[a], aggregator.members[b]) for a, b in undecided),
        noise=None if refits is None else float(refits.noise.mean()),
        noise_high=None if refits is None else refits.noise_at_most(_NOISE_LEVEL),
        refits=0 if refits is None else len(refits.noise),
    )


def _over_refits(
    refits: Refits | None, member: int, share: float, confidence: float
) -> tuple[float | None, float | None, bool | None]:
    """Return the interval of a member's share, and whether the share is above that of noise."""
    if refits is None:
        return None, None, None
    reach = float(refits.errors()[member]) * refits.quantile((1 - confidence) / 2)
    return max(share - reach, 0.0), min(share + reach, 1.0), bool(refits.above_noise(_NOISE_LEVEL)[member])


def _undecided_over(
    refits: Refits, order: Sequence[int], credit: np.ndarray, confidence: float
) -> list[tuple[int, int]]:
    """Return the neighbours in the ranking whose difference is within its deviation over re-fits."""
    needed = refits.quantile((1 - confidence) / 2 / max(len(order) - 1, 1))  # Bonferroni over neighbours
    pairs = []
    for better, worse in pairwise(order):
        error = refits.scale * float((refits.shares[:, better] - refits.shares[:, worse]).std(ddof=1))
        if not credit[better] - credit[worse] > needed * error:
            pairs.append((better, worse))
    return pairs


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


def _sum_by(index: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    return np.stack([np.bincount(index, weights=column, minlength=size) for column in values.T], axis=1)
