"""Who stays under the budget: four rules over one game, and what each decision was based on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, Protocol

from esci_tournament.registry.errors import BudgetError, UsageError
from esci_tournament.tasks.ensemble.budget import Budget, Cost, check_costs, nobody_fits
from esci_tournament.tasks.ensemble.surrogate import expected_improvement

Rule = Literal["shap", "top_k", "exhaustive", "greedy"]
RULES: tuple[Rule, ...] = ("shap", "top_k", "exhaustive", "greedy")
MOST_EXHAUSTIVE_MEMBERS = 12
_SHARE_OF_SETS = 0.3  # of the sets within the budget that the exchange may fit, eviction included
_LEAST_REFITS = 22  # with few sets the share would be next to nothing
_REFITS_A_MODEL = 12  # with many models the share would be thousands
_CENTRES = 5


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


@dataclass(frozen=True)
class Selection:
    """What was decided.

    Attributes:
        rule: the rule. kept: members, in the game's order. value: their validation metric. used: their cost.
        evicted: everybody else, with reason and step. path: the steps that led here.
        refits: sets this looked at, each one re-fit unless it was known.
        best_known: the best set known that fits the budget.
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
        rule: `shap` evicts the least useful a unit of budget, then exchanges (see
            :mod:`esci_tournament.tasks.ensemble.surrogate`);
            `top_k` is the paper's: the most useful that fit; `exhaustive` looks at every set; `greedy` adds the most
            valuable.
        must_keep, must_drop: models that are in, or out, whatever their worth.

    Raises:
        BudgetError: if no model fits the budget, or those that must be kept do not.
        UsageError: if a name is unknown or in both lists, a cost is missing, or there are too many models for the rule.
    """
    budget = budget or Budget()
    search = _Search(game, costs, budget, frozenset(must_keep), frozenset(must_drop))
    rules = {"shap": search.by_shap, "top_k": search.top_k, "exhaustive": search.exhaustive, "greedy": search.greedy}
    if rule not in rules:
        raise UsageError(f"selection rule {rule!r} is unknown; choose one of {', '.join(RULES)}")
    kept = rules[rule]()
    refits = search.spent()
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
        chosen = frozenset(members)
        return tuple(name for name in self.game.members if name in chosen)

    def value(self, members: frozenset[str]) -> float:
        self.asked[members] = self.game.value(members)
        return self.asked[members]

    def spent(self) -> int:
        """Return the number of sets fitted for this selection."""
        return sum(bool(members) for members in self.asked)

    def fits(self, members: Iterable[str]) -> bool:
        return self.budget.fits(members, self.costs)

    def exhaustive(self) -> frozenset[str]:
        if len(self.eligible) > MOST_EXHAUSTIVE_MEMBERS:
            raise UsageError(
                f"{len(self.eligible)} models make {2 ** len(self.eligible)} sets; exhaustive selection looks at up to "
                f"{MOST_EXHAUSTIVE_MEMBERS} models: drop some by must_drop or use the rule shap"
            )
        sets = self._all_sets()
        best = max((s for s in sets if s and self.fits(s)), key=self._rank)
        self._note(best, f"best of {sum(bool(s) and self.fits(s) for s in sets)} sets that fit the budget")
        return best

    def greedy(self) -> frozenset[str]:
        current = self.keep
        value = self.value(current) if current else float("-inf")
        if current:
            self._note(current, "start with those that must be kept")
        while additions := [
            current | {name} for name in sorted(self.eligible - current) if self.fits(current | {name})
        ]:
            best = max(additions, key=self._rank)
            if self.value(best) <= value:
                break
            self._note(best, f"add {next(iter(best - current))}: no other model adds more")
            current, value = best, self.value(best)
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
        """Try sets with evicted models back and members out, the most promising first, while re-fits are left."""
        allowed = self.spent() + self._more_refits()
        while self.spent() < allowed:
            candidates = self._candidates(current)
            if not candidates:
                break
            known = {members: value for members, value in self.asked.items() if members}
            gains = expected_improvement(known, candidates, self.game.members, self.value(current))
            tried = candidates[int(gains.argmax())]
            if self._rank(tried) > self._rank(current):
                self._note_exchange(current, tried)
                current = tried
        return current

    def _more_refits(self) -> int:
        """Return how many re-fits the exchange may take, after those of the eviction."""
        spent = self.spent()
        most = _REFITS_A_MODEL * len(self.eligible - self.keep)
        if len(self.eligible - self.keep) > MOST_EXHAUSTIVE_MEMBERS:
            return most - spent
        share = int(_SHARE_OF_SETS * sum(bool(s) and self.fits(s) for s in self._all_sets()))
        return max(min(share, most), _LEAST_REFITS) - spent

    def _all_sets(self) -> list[frozenset[str]]:
        free = sorted(self.eligible - self.keep)
        return [self.keep | frozenset(chosen) for size in range(len(free) + 1) for chosen in combinations(free, size)]

    def _candidates(self, current: frozenset[str]) -> list[frozenset[str]]:
        """Return the sets within the budget that were not tried: all, or with many models those near the best known."""
        if len(self.eligible - self.keep) <= MOST_EXHAUSTIVE_MEMBERS:
            around = self._all_sets()
        else:
            known = [s for s in self.asked if self._allowed(s) and self.fits(s)]
            centres = sorted(known, key=self._rank, reverse=True)[:_CENTRES]
            around = sorted({near for centre in [current, *centres] for near in self._near(centre)}, key=self.order)
        return [s for s in around if s and s not in self.asked and self.fits(s)]

    def _near(self, centre: frozenset[str]) -> list[frozenset[str]]:
        inside, outside = sorted(centre - self.keep), sorted(self.eligible - centre)
        changed = [centre | {name} for name in outside] + [centre - {name} for name in inside]
        return changed + [(centre - {gone}) | {name} for gone in inside for name in outside]

    def _note_exchange(self, current: frozenset[str], better: frozenset[str]) -> None:
        came, went = sorted(better - current), sorted(current - better)
        gain = self.value(better) - self.value(current)
        parts = [came and f"bring back {', '.join(came)}", went and f"let go {', '.join(went)}"]
        self._note(better, f"{' and '.join(part for part in parts if part)}: the metric gains {gain:.4f}")
        for name in went:
            instead = f"with {', '.join(came)} in its place" if came else "without it"
            self._leave(name, f"exchanged: the ensemble gains {gain:.4f} {instead}")

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
        self.value(members)
        credit = self.game.utility(members)
        self.credit.update(credit)
        return credit

    def _rank(self, members: frozenset[str]) -> tuple[float, float, int, tuple[int, ...]]:
        """Higher metric first; among equals the cheaper, then the smaller, then by name: never by chance."""
        used = self.budget.used(members, self.costs)
        names = tuple(-self.game.members.index(name) for name in self.order(members))
        return self.value(members), -(used.memory_mib + used.milliseconds), -len(members), names

    def _leave(self, name: str, reason: str) -> None:
        self.left_at[name] = (len(self.path), reason)

    def _note(self, members: frozenset[str], action: str) -> None:
        self.path.append(Step(self.order(members), self.value(members), action))
