"""Rules that choose the members of an ensemble: functions from a :class:`Search` to the set that is kept."""

from __future__ import annotations

from collections.abc import Callable

from esci_tournament.registry import extensions
from esci_tournament.registry.errors import UsageError
from esci_tournament.tasks.ensemble.exchange import exchange
from esci_tournament.tasks.ensemble.search import Search

Rule = Callable[[Search], frozenset[str]]

MOST_EXHAUSTIVE_MEMBERS = 12
_SHARE_OF_SETS = 0.3  # of the sets within the budget that the exchange may fit, eviction included
_LEAST_REFITS = 22  # with few sets the share would be next to nothing
_REFITS_A_MODEL = 12  # with many models the share would be thousands


def rule_named(name: str) -> Rule:
    """Return a rule: one of `RULES`, or one that another distribution offers.

    Args:
        name: of the rule, such as "shap".

    Returns:
        A function that is called with a :class:`Search` and returns the set to keep.

    Raises:
        UsageError: if there is none of that name.
    """
    rule: Rule = RULES[name] if name in RULES else extensions.load_function(extensions.SELECTION_RULES, name)
    return rule


def exhaustive(search: Search) -> frozenset[str]:
    """Look at every set that fits, and keep the best.

    Args:
        search: the state of the selection.

    Returns:
        The set with the highest :meth:`Search.rank`.

    Raises:
        UsageError: with more than `MOST_EXHAUSTIVE_MEMBERS` eligible models.
    """
    if len(search.eligible) > MOST_EXHAUSTIVE_MEMBERS:
        raise UsageError(
            f"{len(search.eligible)} models make {2 ** len(search.eligible)} sets; exhaustive selection looks at up to "
            f"{MOST_EXHAUSTIVE_MEMBERS} models: drop some by must_drop or use the rule shap"
        )
    sets = search.all_sets()
    best = max((s for s in sets if s and search.fits(s)), key=search.rank)
    search.note(best, f"best of {sum(bool(s) and search.fits(s) for s in sets)} sets that fit the budget")
    return best


def greedy(search: Search) -> frozenset[str]:
    """Add the most valuable model until none adds anything, and return the set."""
    current = search.keep
    value = search.value(current) if current else float("-inf")
    if current:
        search.note(current, "start with the models that must be kept")
    while additions := [
        current | {name} for name in sorted(search.eligible - current) if search.fits(current | {name})
    ]:
        best = max(additions, key=search.rank)
        if search.value(best) <= value:
            break
        search.note(best, f"add {next(iter(best - current))}: no other model adds more")
        current, value = best, search.value(best)
    return current


def top_k(search: Search) -> frozenset[str]:
    """Keep the models with the highest SHAP utility until the next one exceeds the budget, and return the set."""
    everybody = search.eligible
    credit = search.utility(everybody)
    search.note(everybody, "fit all models and rank by SHAP")
    kept = set(search.keep)
    for name in sorted(everybody - search.keep, key=lambda name: (-credit[name], name)):
        if not search.fits(kept | {name}):
            break
        kept.add(name)
    for name in sorted(everybody - kept):
        search.leave(name, f"utility {credit[name]:.1%}: the budget was spent on more useful models")
    search.note(frozenset(kept), f"keep the {len(kept)} most useful that the budget carries")
    return frozenset(kept)


def by_shap(search: Search) -> frozenset[str]:
    """Evict the least useful a unit of budget, re-fit and rank again; then exchange while the metric improves.

    Args:
        search: the state of the selection.

    Returns:
        The best set that was found.
    """
    kept = evict(search, search.eligible)
    return exchange(search, kept, more_refits(search))


def evict(search: Search, current: frozenset[str]) -> frozenset[str]:
    """Let the member with the least utility a unit of the exceeded budget go, re-fit, and repeat until the rest fits.

    Args:
        search: the state of the selection.
        current: the set to start from.

    Returns:
        A set within the budget.
    """
    search.utility(current)
    search.note(current, "start with all models that fit alone")
    while not search.fits(current):
        credit = search.utility(current)
        prices = {name: search.budget.share(name, search.costs, current) for name in sorted(current - search.keep)}
        paying = {name: credit[name] / price for name, price in prices.items() if price > 0}
        name = min(paying, key=lambda name: (paying[name], name))
        current = current - {name}
        reason = (
            f"least utility a unit of budget: {credit[name]:.1%} of the credit for {prices[name]:.1%} of the budget"
        )
        search.leave(name, reason)
        search.note(current, f"evict {name}: {reason}")
    return current


def more_refits(search: Search) -> int:
    """Return how many more sets the rule `shap` may fit, after those that were asked for so far."""
    spent = search.spent()
    most = _REFITS_A_MODEL * len(search.eligible - search.keep)
    if len(search.eligible - search.keep) > MOST_EXHAUSTIVE_MEMBERS:
        return most - spent
    share = int(_SHARE_OF_SETS * sum(bool(s) and search.fits(s) for s in search.all_sets()))
    return max(min(share, most), _LEAST_REFITS) - spent


RULES: dict[str, Rule] = {"shap": by_shap, "top_k": top_k, "exhaustive": exhaustive, "greedy": greedy}
