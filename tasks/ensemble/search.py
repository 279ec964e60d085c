"""The state that a selection rule works with: value, cost and utility of sets of models, and a record of its steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

from esci_tournament.registry.errors import BudgetError, UsageError
from esci_tournament.tasks.ensemble.budget import Budget, Cost, check_costs, nobody_fits


class Valued(Protocol):
    """The interface that selection needs of a game; :class:`esci_tournament.tasks.ensemble.value.Game` implements it.

    Attributes:
        members: names of all models.
        values: the metric of each set that is known.
        refits: number of sets that were fitted.
    """

    members: tuple[str, ...]
    values: dict[frozenset[str], float]
    refits: int

    def value(self, subset: Iterable[str]) -> float:
        """Return the metric of a set, fitting it when it is new."""
        ...

    def utility(self, subset: Iterable[str]) -> dict[str, float]:
        """Return the share of the SHAP credit of each member of a set; the shares sum to 1."""
        ...


@dataclass(frozen=True)
class Step:
    """One step of a selection.

    Attributes:
        members: the set after the step.
        value: its validation metric.
        action: what was done and why, in words.
    """

    members: tuple[str, ...]
    value: float
    action: str


@dataclass(frozen=True)
class Eviction:
    """A model that is not in the ensemble.

    Attributes:
        member: its name.
        step: number of the step at which it left; 0 if it never entered.
        reason: why it stays out, in words.
    """

    member: str
    step: int
    reason: str


@dataclass(frozen=True)
class CurvePoint:
    """The best set known within a limit on memory or time.

    Attributes:
        limit: its cost, MiB or milliseconds a page.
        value: its metric.
        members: its members.
    """

    limit: float
    value: float
    members: tuple[str, ...]


class Search:
    """The state of one selection: which models may enter, the sets tried so far, and the record for the report.

    Args:
        game: The metric of each set of models.
        costs: The cost of each model.
        budget: The limits for a set.
        keep: Models that are in whatever their worth.
        drop: Models that are out.

    Attributes:
        eligible: Models that may enter: they fit the budget beside those that are kept.
        asked: The sets whose metric this selection asked for, and the metric of each.
        path: The steps so far.
        left_at: For each model that left, the number of steps before that and the reason.
        credit: The utility of each model when it was last computed, a share of 1.

    Raises:
        UsageError: if a name is unknown or both kept and dropped, or a cost is missing.
        BudgetError: if no model fits the budget, or those that must be kept do not.
    """

    def __init__(
        self, game: Valued, costs: Mapping[str, Cost], budget: Budget, keep: frozenset[str], drop: frozenset[str]
    ) -> None:
        names = frozenset(game.members)
        if unknown := sorted((keep | drop) - names):
            raise UsageError(f"{unknown[0]!r} is to be kept or dropped but is not among {', '.join(game.members)}")
        if both := sorted(keep & drop):
            raise UsageError(f"{both[0]} is both to be kept and to be dropped; choose one")
        check_costs(game.members, costs)
        self.game, self.costs, self.budget, self.keep, self.drop = game, costs, budget, keep, drop
        if keep and not budget.fits(keep, costs):
            kept, taken = ", ".join(sorted(keep)), budget.describe(budget.used(keep, costs))
            raise BudgetError(f"those that must be kept ({kept}) take {taken}; raise the budget or keep fewer")
        self.eligible = frozenset(name for name in names - drop if budget.fits(keep | {name}, costs))
        if not self.eligible:
            raise nobody_fits(budget, costs, names - drop or names)
        # Sets known before count too: an interrupted run that starts again with its fits must decide the same
        self.asked: dict[frozenset[str], float] = {}
        self.path: list[Step] = []
        self.left_at: dict[str, tuple[int, str]] = {}
        self.credit: dict[str, float] = {}

    def order(self, members: Iterable[str]) -> tuple[str, ...]:
        """Return a set in the order of the game's members."""
        chosen = frozenset(members)
        return tuple(name for name in self.game.members if name in chosen)

    def value(self, members: frozenset[str]) -> float:
        """Return the validation metric of a set, fitting an aggregator when the set is new."""
        self.asked[members] = self.game.value(members)
        return self.asked[members]

    def spent(self) -> int:
        """Return the number of non-empty sets that this selection asked for."""
        return sum(bool(members) for members in self.asked)

    def fits(self, members: Iterable[str]) -> bool:
        """Return whether a set is within the budget."""
        return self.budget.fits(members, self.costs)

    def all_sets(self) -> list[frozenset[str]]:
        """Return every set of eligible models that holds those that must be kept, smallest first."""
        free = sorted(self.eligible - self.keep)
        return [self.keep | frozenset(chosen) for size in range(len(free) + 1) for chosen in combinations(free, size)]

    def singles(self) -> list[frozenset[str]]:
        """Return the sets of one model that may be kept, in the order of the game's members."""
        alone = (frozenset([name]) for name in self.game.members)
        return [members for members in alone if self.allowed(members) and self.fits(members)]

    def best_known(self) -> frozenset[str]:
        """Return the best set within the budget whose value is known, from this selection or before it."""
        return max((s for s in self.game.values if self.allowed(s) and self.fits(s)), key=self.rank)

    def curve(self, axis: str) -> tuple[CurvePoint, ...]:
        """Return the best metric known at each limit on one axis, the limit on the other axis as it is.

        Args:
            axis: "memory_mib" or "milliseconds".

        Returns:
            Points by rising limit and metric.
        """
        free = (
            Budget(None, self.budget.latency_ms, self.budget.execution)
            if axis == "memory_mib"
            else Budget(self.budget.memory_mib, None, self.budget.execution)
        )
        known = [s for s in self.game.values if s and s <= frozenset(self.game.members) and free.fits(s, self.costs)]
        known.sort(key=lambda s: (getattr(self.budget.used(s, self.costs), axis), -self.game.values[s], sorted(s)))
        points: list[CurvePoint] = []
        for members in known:
            value = self.game.values[members]
            if not points or value > points[-1].value:
                limit = getattr(self.budget.used(members, self.costs), axis)
                points.append(CurvePoint(limit, value, self.order(members)))
        return tuple(points)

    def evictions(self, kept: frozenset[str]) -> tuple[Eviction, ...]:
        """Return why each model that is not kept is out.

        Args:
            kept: the final set.

        Returns:
            One entry for each other model, in the order of the game's members.
        """
        out = []
        for name in self.game.members:
            if name in kept:
                continue
            if name in self.drop:
                step, reason = 0, "named in must_drop"
            elif name not in self.eligible:
                step, reason = (
                    0,
                    f"does not fit the budget alone: {self.budget.describe(self.budget.used([name], self.costs))}",
                )
            else:
                step, reason = self.left_at.get(name, (len(self.path), self._no_gain(kept, name)))
            out.append(Eviction(name, step, reason))
        return tuple(out)

    def _no_gain(self, kept: frozenset[str], name: str) -> str:
        value = self.game.values.get(kept | {name})
        if value is not None and self.fits(kept | {name}):
            return f"with it the metric would change by {value - self.game.value(kept):+.4f}"
        return "no set with it that was tried reaches as much within the budget"

    def allowed(self, members: frozenset[str]) -> bool:
        """Return whether a set is not empty, holds those that must be kept, and only eligible models."""
        return bool(members) and self.keep <= members <= self.eligible

    def utility(self, members: frozenset[str]) -> dict[str, float]:
        """Return the share of the SHAP credit of each member of a set; the shares sum to 1.

        Args:
            members: the set; it is fitted when it is new.

        Returns:
            Name -> share, 0 to 1.
        """
        self.value(members)
        credit = self.game.utility(members)
        self.credit.update(credit)
        return credit

    def rank(self, members: frozenset[str]) -> tuple[float, float, int, tuple[int, ...]]:
        """Return the sort key of a set; higher is better.

        Args:
            members: the set; it is fitted when it is new.

        Returns:
            By metric; of equals the cheaper (MiB + ms), then the smaller set, then by the order of the members,
            so that no tie is broken at random.
        """
        used = self.budget.used(members, self.costs)
        names = tuple(-self.game.members.index(name) for name in self.order(members))
        return self.value(members), -(used.memory_mib + used.milliseconds), -len(members), names

    def leave(self, name: str, reason: str) -> None:
        """Record why a model is out, for the report."""
        self.left_at[name] = (len(self.path), reason)

    def note(self, members: frozenset[str], action: str) -> None:
        """Record a step of the selection, for the report."""
        self.path.append(Step(self.order(members), self.value(members), action))
