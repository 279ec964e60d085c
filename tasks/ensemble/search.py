"""What a selection rule works with: the value, cost and utility of sets of models, and a record of its steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

from esci_tournament.registry.errors import BudgetError, UsageError
from esci_tournament.tasks.ensemble.budget import Budget, Cost, check_costs, nobody_fits


class Valued(Protocol):
    """What selection needs of a game; :class:`esci_tournament.tasks.ensemble.value.Game` is one."""

    members: tuple[str, ...]
    values: dict[frozenset[str], float]
    refits: int

    def value(self, subset: Iterable[str]) -> float: ...

    def utility(self, subset: Iterable[str]) -> dict[str, float]: ...


@dataclass(frozen=True)
class Step:
    """One step of a selection: the set after it, its validation metric, and what was done and why."""

    members: tuple[str, ...]
    value: float
    action: str


@dataclass(frozen=True)
class Eviction:
    """A model that is not in the ensemble: the step it left at (0: it never entered) and why it stays out."""

    member: str
    step: int
    reason: str


@dataclass(frozen=True)
class CurvePoint:
    """The best set known within a limit: its cost on this axis, its metric, its members."""

    limit: float
    value: float
    members: tuple[str, ...]


class Search:
    """The state of one selection, which a rule asks and tells: who may enter, what was tried, what was said.

    Attributes:
        game: What each set of models reaches.
        costs: The cost of each model.
        budget: What a set may cost.
        keep: Models that are in whatever their worth; drop: models that are out.
        eligible: Models that may enter: they fit the budget beside those that are kept.
        asked: The sets that this selection asked for, and the metric of each.
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
        # What was asked here, known before or not: an interrupted run that starts again with its fits must decide alike
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
        """Return the number of sets fitted for this selection."""
        return sum(bool(members) for members in self.asked)

    def fits(self, members: Iterable[str]) -> bool:
        """Return whether a set is within the budget."""
        return self.budget.fits(members, self.costs)

    def all_sets(self) -> list[frozenset[str]]:
        """Return every set of eligible models that holds those that must be kept."""
        free = sorted(self.eligible - self.keep)
        return [self.keep | frozenset(chosen) for size in range(len(free) + 1) for chosen in combinations(free, size)]

    def best_known(self) -> frozenset[str]:
        """Return the best set within the budget whose value is known, from this selection or before it."""
        return max((s for s in self.game.values if self.allowed(s) and self.fits(s)), key=self.rank)

    def curve(self, axis: str) -> tuple[CurvePoint, ...]:
        """Return the best metric known at each limit on one axis, the limit on the other axis as it is."""
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
        """Return why everybody who is not kept is out."""
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
        """Return whether a set holds those that must be kept, and eligible models alone."""
        return bool(members) and self.keep <= members <= self.eligible

    def utility(self, members: frozenset[str]) -> dict[str, float]:
        """Return what SHAP credits each member of a set with, as shares of 1."""
        self.value(members)
        credit = self.game.utility(members)
        self.credit.update(credit)
        return credit

    def rank(self, members: frozenset[str]) -> tuple[float, float, int, tuple[int, ...]]:
        """Higher metric first; among equals the cheaper, then the smaller, then by name: never by chance."""
        used = self.budget.used(members, self.costs)
        names = tuple(-self.game.members.index(name) for name in self.order(members))
        return self.value(members), -(used.memory_mib + used.milliseconds), -len(members), names

    def leave(self, name: str, reason: str) -> None:
        """Record why a model is out, for the report."""
        self.left_at[name] = (len(self.path), reason)

    def note(self, members: frozenset[str], action: str) -> None:
        """Record a step of the selection, for the report."""
        self.path.append(Step(self.order(members), self.value(members), action))
