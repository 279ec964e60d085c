"""Who stays under the budget: four rules over one game, and what each decision was based on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, Protocol

from registry.errors import BudgetError, UsageError
from tasks.ensemble.budget import Budget, Cost, check_costs, nobody_fits

Rule = Literal["shap", "top_k", "exhaustive", "greedy"]
RULES: tuple[Rule, ...] = ("shap", "top_k", "exhaustive", "greedy")
MOST_EXHAUSTIVE_MEMBERS = 12


class Valued(Protocol):
    """What selection needs of a game; :class:`tasks.ensemble.value.Game` is one."""

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


@dataclass(frozen=True)
class Selection:
    """What was decided.

    Attributes:
        rule: the rule. kept: members, in the game's order. value: their validation metric. used: their cost.
        evicted: everybody else, with reason and step. path: the steps that led here.
        refits: sets that had to be fitted for this. best_known: the best set known that fits the budget.
        best_value: its metric. regret: best_value - value, zero or more.
        memory_curve, latency_curve: the best metric known at each limit, the other budget as it is.
    """

    rule: Rule
    kept: tuple[str, ...]
    value: float
    used: Cost
    evicted: tuple[Eviction, ...]
    path: tuple[Step, ...]
    refits: int
    best_known: tuple[str, ...]
    best_value: float
    regret: float
    memory_curve: tuple[CurvePoint, ...]
    latency_curve: tuple[CurvePoint, ...]


def select(
    game: Valued,
    costs: Mapping[str, Cost],
    budget: Budget | None = None,
    rule: Rule = "shap",
    must_keep: Iterable[str] = (),
    must_drop: Iterable[str] = (),
) -> Selection:
    """Choose the members of the ensemble. The candidate competes like everyone else.

    Args:
        game: what each set of models reaches. costs: of each model.
        rule: `shap` evicts the least useful a unit of budget, then exchanges; `top_k` is the paper's: the most useful
            that fit; `exhaustive` looks at every set; `greedy` adds the most valuable.
        must_keep, must_drop: models that are in, or out, whatever their worth.

    Raises:
        BudgetError: if no model fits the budget, or those that must be kept do not.
        UsageError: if a name is unknown or in both lists, a cost is missing, or there are too many models for the rule.
    """
    budget = budget or Budget()
    search = _Search(game, costs, budget, frozenset(must_keep), frozenset(must_drop))
    before = game.refits
    rules = {"shap": search.by_shap, "top_k": search.top_k, "exhaustive": search.exhaustive, "greedy": search.greedy}
    if rule not in rules:
        raise UsageError(f"selection rule {rule!r} is unknown; choose one of {', '.join(RULES)}")
    kept = rules[rule]()
    refits = game.refits - before
    best = search.best_known()
    value = game.value(kept)
    return Selection(
        rule=rule,
        kept=search.order(kept),
        value=value,
        used=budget.used(kept, costs),
        evicted=search.evictions(kept),
        path=tuple(search.path),
        refits=refits,
        best_known=search.order(best),
        best_value=game.value(best),
        regret=max(game.value(best) - value, 0.0),
        memory_curve=search.curve("memory_mib"),
        latency_curve=search.curve("milliseconds"),
    )


class _Search:
    """The state of one selection: who may enter, what was tried, what was said."""

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
            raise BudgetError(
                f"the members that must be kept ({', '.join(sorted(keep))}) take {budget.describe(budget.used(keep, costs))}; "
                "raise the budget or keep fewer"
            )
        self.eligible = frozenset(name for name in names - drop if budget.fits(keep | {name}, costs))
        if not self.eligible:
            raise nobody_fits(budget, costs, names - drop or names)
        self.path: list[Step] = []
        self.left_at: dict[str, tuple[int, str]] = {}
        self.credit: dict[str, float] = {}

    def order(self, members: Iterable[str]) -> tuple[str, ...]:
        chosen = frozenset(members)
        return tuple(name for name in self.game.members if name in chosen)

    def fits(self, members: Iterable[str]) -> bool:
        return self.budget.fits(members, self.costs)

    def exhaustive(self) -> frozenset[str]:
        if len(self.eligible) > MOST_EXHAUSTIVE_MEMBERS:
            raise UsageError(
                f"{len(self.eligible)} models make {2 ** len(self.eligible)} sets; exhaustive selection looks at up to "
                f"{MOST_EXHAUSTIVE_MEMBERS} models: drop some by must_drop or use the rule shap"
            )
        free = sorted(self.eligible - self.keep)
        sets = [self.keep | frozenset(chosen) for size in range(len(free) + 1) for chosen in combinations(free, size)]
        best = max((s for s in sets if s and self.fits(s)), key=self._rank)
        self._note(best, f"best of {sum(bool(s) and self.fits(s) for s in sets)} sets that fit the budget")
        return best

    def greedy(self) -> frozenset[str]:
        current = self.keep
        value = self.game.value(current) if current else float("-inf")
        if current:
            self._note(current, "start with those that must be kept")
        while additions := [
            current | {name} for name in sorted(self.eligible - current) if self.fits(current | {name})
        ]:
            best = max(additions, key=self._rank)
            if self.game.value(best) <= value:
                break
            self._note(best, f"add {next(iter(best - current))}: no other model adds more")
            current, value = best, self.game.value(best)
        return current

    def top_k(self) -> frozenset[str]:
        everybody = self.eligible
        credit = self._utility(everybody)
        self._note(everybody, "fit everybody and rank by SHAP")
        kept = set(self.keep)
        for name in sorted(everybody - self.keep, key=lambda name: (-credit[name], name)):
            if not self.fits(kept | {name}):
                break
            kept.add(name)
        for name in sorted(everybody - kept):
            self._leave(name, f"utility {credit[name]:.1%}: the budget was spent on more useful models")
        self._note(frozenset(kept), f"keep the {len(kept)} most useful that the budget carries")
        return frozenset(kept)

    def by_shap(self) -> frozenset[str]:
        return self._exchange(self._evict(self.eligible))

    def _evict(self, current: frozenset[str]) -> frozenset[str]:
        self._utility(current)
        self._note(current, "start with everybody who fits alone")
        while not self.fits(current):
            credit = self._utility(current)
            prices = {name: self.budget.share(name, self.costs, current) for name in sorted(current - self.keep)}
            paying = {name: credit[name] / price for name, price in prices.items() if price > 0}
            name = min(paying, key=lambda name: (paying[name], name))
            current = current - {name}
            reason = (
                f"least utility a unit of budget: {credit[name]:.1%} of the credit for {prices[name]:.1%} of the budget"
            )
            self._leave(name, reason)
            self._note(current, f"evict {name}: {reason}")
        return current

    def _exchange(self, current: frozenset[str]) -> frozenset[str]:
        """Try each evicted model back, alone or in place of members, and members out, while the metric improves."""
        while True:
            better = self._first_better(current)
            if better is None:
                return current
            came, went = sorted(better - current), sorted(current - better)
            gain = self.game.value(better) - self.game.value(current)
            action = " and ".join(
                part
                for part in (came and f"bring back {', '.join(came)}", went and f"let go {', '.join(went)}")
                if part
            )
            self._note(better, f"{action}: the metric gains {gain:.4f}")
            for name in went:
                self._leave(
                    name,
                    f"exchanged: the ensemble gains {gain:.4f} "
                    + (f"with {', '.join(came)}" if came else "without it"),
                )
            current = better

    def _first_better(self, current: frozenset[str]) -> frozenset[str] | None:
        value = self.game.value(current)
        credit = self._utility(current)
        outside = sorted(self.eligible - current, key=lambda name: (-self.credit.get(name, 0.0), name))
        movable = sorted(current - self.keep, key=lambda name: (credit[name], name))
        for name in outside:
            moves = [current | {name}] + [(current - {member}) | {name} for member in movable]
            tried = [move for move in moves if self.fits(move)]
            if tried and self.game.value(best := max(tried, key=self._rank)) > value:
                return best
        smaller = [current - {member} for member in movable if len(current) > 1]
        if smaller and self.game.value(best := max(smaller, key=self._rank)) > value:
            return best
        return None

    def best_known(self) -> frozenset[str]:
        return max((s for s in self.game.values if self._allowed(s) and self.fits(s)), key=self._rank)

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

    def _allowed(self, members: frozenset[str]) -> bool:
        return bool(members) and self.keep <= members <= self.eligible

    def _utility(self, members: frozenset[str]) -> dict[str, float]:
        credit = self.game.utility(members)
        self.credit.update(credit)
        return credit

    def _rank(self, members: frozenset[str]) -> tuple[float, float, int, Sequence[str]]:
        """Higher metric first; among equals the cheaper, then the smaller, then by name: never by chance."""
        used = self.budget.used(members, self.costs)
        names = tuple(-self.game.members.index(name) for name in self.order(members))
        return self.game.value(members), -(used.memory_mib + used.milliseconds), -len(members), names

    def _leave(self, name: str, reason: str) -> None:
        self.left_at[name] = (len(self.path), reason)

    def _note(self, members: frozenset[str], action: str) -> None:
        self.path.append(Step(self.order(members), self.game.value(members), action))
