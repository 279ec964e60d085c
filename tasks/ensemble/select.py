"""Choose the members of an ensemble within the budget, and record what each decision was based on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from esci_tournament.registry.errors import UsageError
from esci_tournament.tasks.ensemble.budget import Budget, Cost
from esci_tournament.tasks.ensemble.search import CurvePoint, Eviction, Search, Step, Valued
from esci_tournament.tasks.ensemble.selection_rules import rule_named


@dataclass(frozen=True)
class Selection:
    """The result of a selection.

    Attributes:
        rule: name of the rule.
        kept: members, in the game's order.
        value: their validation metric.
        used: their cost.
        evicted: all other models, with reason and step.
        path: the steps that led here.
        refits: sets this looked at, each one re-fit unless it was known.
        best_known: the best set known that fits the budget.
        best_value: its metric.
        regret: best_value - value, zero or more.
        memory_curve: the best metric known at each limit on memory, the latency limit as it is.
        latency_curve: the best metric known at each limit on latency, the memory limit as it is.
        alone: models that might have been kept alone, in the game's order.
    """

    rule: str
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
    alone: tuple[str, ...] = ()


def select(
    game: Valued,
    costs: Mapping[str, Cost],
    budget: Budget | None = None,
    rule: str = "shap",
    must_keep: Iterable[str] = (),
    must_drop: Iterable[str] = (),
) -> Selection:
    """Choose the members of the ensemble: what the rule keeps, or one model alone where that is not behind.

    Args:
        game: the metric of each set of models.
        costs: the cost of each model.
        budget: the limits; None for no limit.
        rule: one of :data:`esci_tournament.tasks.ensemble.selection_rules.RULES`, or that of a plug-in.
        must_keep: models that are in whatever their worth.
        must_drop: models that are out whatever their worth.

    Returns:
        The members, the steps and the evictions.

    Raises:
        BudgetError: if no model fits the budget, or those that must be kept do not.
        UsageError: if a name is unknown or in both lists, a cost is missing, there are too many models for the rule, or
            the rule keeps a set that is not allowed.
    """
    budget = budget or Budget()
    search = Search(game, costs, budget, frozenset(must_keep), frozenset(must_drop))
    for alone in search.singles():
        search.value(alone)
    kept = rule_named(rule)(search)
    if not kept or not search.allowed(kept) or not search.fits(kept):
        raise UsageError(
            f"selection rule {rule!r} kept {', '.join(sorted(kept)) or 'no model'}: it has to keep eligible models "
            "within the budget, and those that must be kept"
        )
    kept = _or_alone(search, kept)
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
        alone=tuple(name for single in search.singles() for name in single),
    )


def _or_alone(search: Search, kept: frozenset[str]) -> frozenset[str]:
    best = max([kept, *search.singles()], key=search.rank)
    if best != kept:
        name = next(iter(best))
        search.note(best, f"keep {name} alone: no ensemble that was tried is ahead of it")
        for other in sorted(kept - best):
            search.leave(other, f"no ensemble that was tried is ahead of {name} alone")
    return best
