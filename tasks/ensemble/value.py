"""The game v(S) of selection: the out-of-fold metric of the ensemble re-fit on the members S, each set once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import factorial

import numpy as np

from esci_tournament.registry.errors import UsageError
from esci_tournament.tasks.ensemble.aggregate import Aggregator, AggregatorParameters, check_shapes
from esci_tournament.tasks.ensemble.attribution import utilities
from esci_tournament.tasks.ensemble.counts import confusion, confusion_by_query, influence_of, metric_of
from esci_tournament.tasks.ensemble.fitting import Choice, cross_validate, fit_aggregator
from esci_tournament.tasks.ensemble.rule import UNSEEN, estimated

MOST_SHAPLEY_MEMBERS = 10
MOST_ROWS = 60_000  # pairs that a set is fitted on

Heard = Callable[[frozenset[str], float], None]


@dataclass(frozen=True)
class Fitted:
    """What a cross-validation found, without its arrays.

    Attributes:
        choice: what the final fit follows.
        margins: reported metric -> how far the set is ahead of its best member on that metric, out of fold.
        counts: "all" and each locale -> float64 (4, 4), true by predicted, out of fold; see `estimated` in `rule.py`.
        influence: float64 (q,), how much each query moves the metric, to first order; they add up to 0.
    """

    choice: Choice
    margins: dict[str, float]
    counts: dict[str, np.ndarray]
    influence: np.ndarray


class Game:
    """The metric of any set of members, each set fitted once.

    Args:
        columns: float32 (n, k, 4), out-of-sample scores of all k models.
        labels: int8 (n,), index into `LABELS`.
        groups: uint64 (n,), query keys.
        members: k names.
        parameters: of the aggregator.
        metric: macro_f1, weighted_f1, accuracy, or that of a plug-in.
        maximum_rows: on more pairs than this whole queries are left out (the same for every set): a re-fit then takes
            seconds on millions of pairs. None uses all.
        known: values already known, such as those of an interrupted run.
        heard: called with each set and its value as soon as it is fitted.
        locales: str (n,), of each pair; None where counts by locale are not asked for.

    Attributes:
        values: the value of each set that is known.
        refits: number of sets that were fitted.

    Raises:
        UsageError: if shapes do not fit or a name is repeated.
    """

    def __init__(
        self,
        columns: np.ndarray,
        labels: np.ndarray,
        groups: np.ndarray,
        members: Sequence[str],
        parameters: AggregatorParameters | None = None,
        metric: str = "macro_f1",
        maximum_rows: int | None = MOST_ROWS,
        known: Mapping[frozenset[str], float] | None = None,
        heard: Heard | None = None,
        locales: np.ndarray | None = None,
    ) -> None:
        check_shapes(columns, labels, groups, members)
        self._everything = columns, labels, groups
        if len(set(members)) != len(members):
            raise UsageError(f"members {list(members)} repeat a name; name each once")
        rows = whole_queries(groups, maximum_rows)
        self.columns, self.labels, self.groups = columns[rows], labels[rows], groups[rows]
        self._places = {} if locales is None else {str(name): locales[rows] == name for name in np.unique(locales)}
        self._queries = np.unique(self.groups)
        self.members, self.metric = tuple(members), metric
        self.parameters = replace(parameters or AggregatorParameters(), metric=metric)
        self.values: dict[frozenset[str], float] = dict(known or {})
        self.refits = 0
        self._heard = heard
        self._fitted: dict[frozenset[str], Fitted] = {}
        self._utilities: dict[frozenset[str], dict[str, float]] = {}

    def value(self, subset: Iterable[str]) -> float:
        """Return v(subset); that of the empty set is the metric of always answering the most frequent class.

        Args:
            subset: names of members.

        Returns:
            The metric, in its unit.

        Raises:
            UsageError: if a name is unknown.
        """
        key = frozenset(subset)
        if key not in self.values:
            if key:
                self._refit(key)
            else:
                self.values[key] = float(metric_of(self.metric, confusion(self.labels, self._frequent())))
        return self.values[key]

    def utility(self, subset: Iterable[str]) -> dict[str, float]:
        """Return the share of the SHAP credit of each member when the ensemble is fitted on `subset` alone.

        Args:
            subset: names of members.

        Returns:
            Name -> share; the shares sum to 1.

        Raises:
            UsageError: if a name is unknown.
        """
        key = frozenset(subset)
        if key not in self._utilities:
            self._utilities[key] = utilities(self.aggregator(key), self._columns_of(key), self.parameters.threads)
        return self._utilities[key]

    def aggregator(self, subset: Iterable[str]) -> Aggregator:
        """Return the ensemble fitted on `subset` with all of the game's pairs.

        Args:
            subset: names of members.

        Returns:
            The aggregator, as cross-validation chose.

        Raises:
            UsageError: if a name is unknown.
        """
        key = frozenset(subset)
        choice = self.fitted(key).choice
        return fit_aggregator(self._columns_of(key), self.labels, self.groups, self.order(key), self.parameters, choice)

    def fitted(self, subset: Iterable[str]) -> Fitted:
        """Return what cross-validation chose for `subset`, and how far it is ahead of the best member.

        Args:
            subset: names of members.

        Returns:
            The choice, the margins and the counts.

        Raises:
            UsageError: if a name is unknown.
        """
        key = frozenset(subset)
        if key not in self._fitted:
            self._refit(key)
        return self._fitted[key]

    def final_aggregator(self, subset: Iterable[str]) -> Aggregator:
        """Return the ensemble fitted on `subset` with all pairs, also those that `maximum_rows` left out.

        Args:
            subset: names of members.

        Returns:
            The aggregator.

        Raises:
            UsageError: if a name is unknown.
        """
        columns, labels, groups = self._everything
        if len(labels) == len(self.labels):
            return self.aggregator(subset)
        members = self.order(subset)
        chosen = np.ascontiguousarray(columns[:, [self.members.index(member) for member in members]])
        return fit_aggregator(chosen, labels, groups, members, self.parameters)

    def drop_one(self, subset: Iterable[str] | None = None) -> dict[str, float]:
        """Return what the metric loses when the ensemble is re-fit without each member.

        Args:
            subset: names of members; None for all.

        Returns:
            Name -> loss in the metric's unit; negative when the ensemble is better without the member.
        """
        key = frozenset(self.members if subset is None else subset)
        return {member: self.value(key) - self.value(key - {member}) for member in self.order(key)}

    def error(self, subset: Iterable[str] | None = None) -> float:
        """Return the standard error over queries of the value of a set, see :meth:`contrast`.

        Args:
            subset: names of members; None for all.

        Returns:
            In the metric's unit.
        """
        return self.contrast([(1.0, self.members if subset is None else subset)])[1]

    def drop_one_errors(self, subset: Iterable[str] | None = None) -> dict[str, float]:
        """Return the standard error of each loss that :meth:`drop_one` returns.

        Args:
            subset: names of members; None for all.

        Returns:
            Name -> standard error in the metric's unit.
        """
        key = frozenset(self.members if subset is None else subset)
        return {member: self.contrast([(1.0, key), (-1.0, key - {member})])[1] for member in self.order(key)}

    def contrast(self, terms: Iterable[tuple[float, Iterable[str]]]) -> tuple[float, float]:
        """Return a weighted sum of values of sets, and its standard error.

        The error is that over queries, paired: the same query moves all sets. To first order a metric is a sum over
        queries (the infinitesimal jackknife: Efron 1982, "The Jackknife, the Bootstrap and Other Resampling Plans",
        chapter 6). Sets are fitted on the same folds, so that what a fit owes to the queries it learnt from is in it
        only as far as it shows in what it answers for others.

        Args:
            terms: weights, and sets of names of members.

        Returns:
            The sum and its standard error, in the metric's unit.

        Raises:
            UsageError: if a name is unknown.
        """
        total, moved = 0.0, np.zeros(len(self._queries))
        for weight, subset in terms:
            key = frozenset(subset)
            total += weight * self.value(key)
            moved += weight * (self.fitted(key).influence if key else self._influence(*[self._frequent()] * 2))
        few = len(moved) / max(len(moved) - 1, 1)
        return total, float(np.sqrt(few * (moved**2).sum()))

    def shapley(self, subset: Iterable[str] | None = None) -> dict[str, float]:
        """Return the exact Shapley value of each member; they add up to v(subset) - v(empty set).

        Args:
            subset: names of members; None for all.

        Returns:
            Name -> value in the metric's unit.

        Raises:
            UsageError: with more than 10 members, for which 2**k re-fits are too many.
        """
        key = frozenset(self.members if subset is None else subset)
        size = len(key)
        if size > MOST_SHAPLEY_MEMBERS:
            raise UsageError(
                f"{size} members need {2**size} re-fits; exact Shapley values are made up to {MOST_SHAPLEY_MEMBERS}"
            )
        result = {}
        for member in self.order(key):
            others = sorted(key - {member})
            result[member] = sum(
                factorial(count) * factorial(size - count - 1) / factorial(size)
                * (self.value({*chosen, member}) - self.value(chosen))
                for count in range(size)
                for chosen in combinations(others, count)
            )  # fmt: skip
        return result

    def order(self, subset: Iterable[str]) -> tuple[str, ...]:
        """Return the members of `subset` in the game's own order.

        Args:
            subset: names of members.

        Returns:
            The names.

        Raises:
            UsageError: if one is unknown.
        """
        key = frozenset(subset)
        if unknown := sorted(key - set(self.members)):
            raise UsageError(f"{unknown[0]!r} is not among the models {', '.join(self.members)}")
        return tuple(member for member in self.members if member in key)

    def _columns_of(self, key: frozenset[str]) -> np.ndarray:
        return np.ascontiguousarray(self.columns[:, [self.members.index(member) for member in self.order(key)]])

    def _refit(self, key: frozenset[str]) -> None:
        found = cross_validate(self._columns_of(key), self.labels, self.groups, self.parameters)
        counts = {"all": found.counts}
        for name, here in self._places.items():
            counts[name] = estimated(self.labels[here], found.decisions[:, here])
        self._fitted[key] = Fitted(found.choice, found.margins, counts, self._influence(*found.decisions))
        self.values[key] = float(metric_of(self.metric, found.counts))
        self.refits += 1
        if self._heard is not None:
            self._heard(key, self.values[key])

    def _frequent(self) -> np.ndarray:
        """Return the most frequent class as the label of every pair, int64 (n,)."""
        return np.full(len(self.labels), np.bincount(self.labels, minlength=4).argmax())

    def _influence(self, unseen: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Return the influence of each query on the metric of two sets of decisions, as `estimated` weighs them."""
        first, second = (confusion_by_query(self.labels, given, self.groups)[1] for given in (unseen, seen))
        moved = influence_of(self.metric, UNSEEN * first + (1 - UNSEEN) * second)
        return moved - moved.mean()


def whole_queries(groups: np.ndarray, maximum_rows: int | None) -> np.ndarray:
    """Return the rows of as many whole queries as fit, those with the lowest keys, which are hashes and so random.

    Args:
        groups: uint64 (n,), query keys.
        maximum_rows: rows at most, but one query at least; None for all.

    Returns:
        int64, ascending.

    Example:
        >>> whole_queries(np.array([5, 9, 9, 9, 5], dtype=np.uint64), maximum_rows=3).tolist()
        [0, 4]
    """
    if maximum_rows is None or len(groups) <= maximum_rows:
        return np.arange(len(groups))
    keys, counts = np.unique(groups, return_counts=True)
    kept = keys[: max(int(np.searchsorted(np.cumsum(counts), maximum_rows, side="right")), 1)]
    return np.flatnonzero(np.isin(groups, kept))
