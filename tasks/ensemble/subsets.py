"""An aggregator for each of many subsets of the members, so that the members that answered in time can be combined."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from esci_tournament.registry.errors import NotFoundError, StoreError, UsageError
from esci_tournament.registry.files import write_atomically
from esci_tournament.registry.foreign import below, read_json_file
from esci_tournament.tasks.ensemble.aggregate import Aggregator, check_shapes
from esci_tournament.tasks.ensemble.counts import metric_of
from esci_tournament.tasks.ensemble.fitting import cross_validate, fit_aggregator
from esci_tournament.tasks.ensemble.value import whole_queries

_CARD = "subsets.json"
MOST_PAIRS = 60_000  # pairs that a subset's aggregator learns from: whole queries are left out above it


@dataclass(frozen=True)
class Subset:
    """Some of the members with an aggregator of their own.

    Attributes:
        members: their names, in the ensemble's order.
        aggregator: fitted on their columns alone.
        value: metric of its out-of-fold labels on the pairs the ensemble's aggregator learns from.
    """

    members: tuple[str, ...]
    aggregator: Aggregator
    value: float


@dataclass(frozen=True)
class Subsets:
    """The subsets that are kept, the largest first, among equally large ones the best first.

    Attributes:
        members: the ensemble's members, in its order.
        kept: the subsets, always with that of all members.
        rows: int64 (n,), the rows of the fit's arguments that were learnt from; empty when loaded.
        out_of_fold: members -> float64 (n, 4), decision scores of those rows by folds that did not see their query.
            Only after a fit; it is not saved.
    """

    members: tuple[str, ...]
    kept: tuple[Subset, ...]
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64), repr=False)
    out_of_fold: dict[tuple[str, ...], np.ndarray] = field(default_factory=dict, repr=False)

    @classmethod
    def fit(
        cls,
        columns: np.ndarray,
        labels: np.ndarray,
        groups: np.ndarray,
        complete: Aggregator,
        order: Sequence[str] = (),
        limit: int = 40,
        metric: str = "macro_f1",
        threads: int = 1,
        maximum_rows: int | None = MOST_PAIRS,
    ) -> Subsets:
        """Fit an aggregator for each subset that :func:`subsets_to_keep` names.

        Args:
            columns: float32 (n, k, 4), the out-of-sample scores that `complete` was fitted on.
            labels: int8 (n,), index into `LABELS`.
            groups: uint64 (n,), query keys.
            complete: the aggregator of all k members, used as it is for the subset of all.
            order: the members as early exit asks them; default: the ensemble's own order.
            limit: number of subsets to keep.
            metric: name of the metric by which equally large subsets are ranked.
            threads: subsets fitted at once.
            maximum_rows: pairs learnt from at most; None for all.

        Returns:
            The subsets with their aggregators and out-of-fold decision scores.

        Raises:
            UsageError: if shapes do not fit, or `order` names other members than `complete`.
        """
        members = complete.members
        check_shapes(columns, labels, groups, members)
        wanted = subsets_to_keep(members, order or members, limit)
        rows = whole_queries(groups, maximum_rows)
        columns, labels, groups = columns[rows], labels[rows], groups[rows]
        one_thread = replace(complete.parameters, metric=metric, threads=1)  # subsets are fitted side by side instead

        def work(subset: tuple[str, ...]) -> tuple[Subset, np.ndarray]:
            own = np.ascontiguousarray(columns[:, [members.index(member) for member in subset]])
            found = cross_validate(own, labels, groups, one_thread)
            value = float(metric_of(metric, found.counts))
            if subset == members:
                # Its own offsets, which it may have from more pairs, decide as those of the served aggregator do
                return Subset(subset, complete, value), found.scores + np.array(complete.offsets)
            fitted = fit_aggregator(own, labels, groups, subset, one_thread, found.choice)
            return Subset(subset, fitted, value), found.decision_scores

        with ThreadPoolExecutor(max(threads, 1)) as pool:
            results = list(pool.map(work, wanted))
        held_out = {one.members: scores for one, scores in results}
        return cls(members, _ranked(one for one, _ in results), rows, held_out)

    def best(self, available: Iterable[str]) -> tuple[Aggregator, tuple[str, ...]]:
        """Return the aggregator of the largest kept subset of the available members.

        Args:
            available: names of the members that have answered.

        Returns:
            The aggregator, and its members in its own order.

        Raises:
            NotFoundError: if no kept subset has answered; after a fit one answer is enough.
        """
        present = set(available)
        for subset in self.kept:
            if present.issuperset(subset.members):
                return subset.aggregator, subset.members
        raise NotFoundError(
            f"no aggregator is kept for {', '.join(sorted(present)) or 'no member'} alone; wait for more members, "
            f"or run a tournament to make the ensemble of {', '.join(self.members)} again: it keeps them"
        )

    def save(self, folder: Path) -> None:
        """Write `subsets.json` and a folder for each aggregator (LightGBM's text format) into `folder`."""
        entries = []
        for number, subset in enumerate(self.kept):
            subset.aggregator.save(folder / f"{number:03d}")
            entries.append({"members": list(subset.members), "value": subset.value, "folder": f"{number:03d}"})
        card = {"members": list(self.members), "subsets": entries}
        write_atomically(folder / _CARD, (json.dumps(card, indent=2) + "\n").encode())

    @classmethod
    def load(cls, folder: Path, complete: Aggregator | None = None) -> Subsets:
        """Return what `save` wrote.

        Args:
            folder: where `save` wrote; it is absent for an ensemble that was made without subsets.
            complete: the ensemble's aggregator, the only subset when the folder is absent.

        Returns:
            The subsets, with their trees read.

        Raises:
            NotFoundError: if the folder is absent and `complete` is not given.
            StoreError: if a file is damaged.
        """
        if not (folder / _CARD).is_file():
            if complete is None:
                raise NotFoundError(f"{folder} holds no aggregators of subsets; the ensemble was made without them")
            return cls(complete.members, (Subset(complete.members, complete, 0.0),))
        try:
            card = read_json_file(folder / _CARD)
            found = [(tuple(one["members"]), below(folder, one["folder"]), one["value"]) for one in card["subsets"]]
            entries = [(names, place, float(value)) for names, place, value in found]
            members = tuple(card["members"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{folder / _CARD} cannot be read: {error}; run a tournament to make the ensemble again"
            ) from error
        kept = [Subset(names, Aggregator.load(place).prepared(), value) for names, place, value in entries]
        if wrong := [subset for subset in kept if subset.members != subset.aggregator.members]:
            raise StoreError(
                f"{folder / _CARD} names {', '.join(wrong[0].members)} where the aggregator is that of "
                f"{', '.join(wrong[0].aggregator.members)}; run a tournament to make the ensemble again"
            )
        return cls(members, _ranked(kept))


def subsets_to_keep(members: Sequence[str], order: Sequence[str], limit: int) -> list[tuple[str, ...]]:
    """Return the subsets that get an aggregator.

    These are all non-empty subsets if there are at most `limit`. Otherwise they are all prefixes of `order`, each
    member alone (both are kept whatever the limit: early exit and a single answer need them), and as many sets that
    lack one member as the limit leaves room for, the last of `order` being the first to be left out.

    Args:
        members: the ensemble's members, in its order.
        order: the same members as early exit asks them.
        limit: number of subsets, at least 1.

    Returns:
        Subsets in the members' own order; the first is that of all members.

    Raises:
        UsageError: if `order` does not name each member once, or the limit is below 1.

    Example:
        >>> subsets_to_keep(["a", "b", "c"], order=["c", "a", "b"], limit=5)
        [('a', 'b', 'c'), ('a', 'c'), ('c',), ('a',), ('b',)]
    """
    if sorted(order) != sorted(members) or len(set(members)) != len(members) or limit < 1:
        raise UsageError(
            f"members {list(members)} in the order {list(order)}, {limit} subsets: the order names each member once, "
            "and at least one subset is kept"
        )
    size = len(members)
    if 2**size - 1 <= limit:
        chosen = [subset for count in range(size, 0, -1) for subset in combinations(order, count)]
    else:
        chosen = [tuple(order[:count]) for count in range(size, 0, -1)] + [(member,) for member in order]
        lacking_one = [tuple(other for other in order if other != member) for member in reversed(order)]
        chosen = _distinct(chosen)
        chosen += [subset for subset in lacking_one if subset not in chosen][: max(limit - len(chosen), 0)]
    return _distinct(tuple(member for member in members if member in set(subset)) for subset in chosen)


def _distinct(subsets: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return list(dict.fromkeys(subsets))


def _ranked(subsets: Iterable[Subset]) -> tuple[Subset, ...]:
    return tuple(sorted(subsets, key=lambda one: (-len(one.members), -one.value, one.members)))
