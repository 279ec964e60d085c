"""Rules that choose the members of an ensemble: functions from a :class:`Search` to the set that is kept."""

from __future__ import annotations

from collections.abc import Callable

from esci_tournament.registry import extensions
from esci_tournament.registry.errors import UsageError
from esci_tournament.tasks.ensemble.search import Search
from esci_tournament.tasks.ensemble.surrogate import expected_improvement

Rule = Callable[[Search], frozenset[str]]

MOST_EXHAUSTIVE_MEMBERS = 12
_SHARE_OF_SETS = 0.3  # of the sets within the budget that the exchange may fit, eviction included
_LEAST_REFITS = 22  # with few sets the share would be next to nothing
_REFITS_A_MODEL = 12  # with many models the share would be thousands
_CENTRES = 5


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
    return _exchange(search, _evict(search, search.eligible))


def _evict(search: Search, current: frozenset[str]) -> frozenset[str]:
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


def _exchange(search: Search, current: frozenset[str]) -> frozenset[str]:
    """Try sets with evicted models back and members out, the most promising first, while re-fits are left."""
    allowed = search.spent() + _more_refits(search)
    while search.spent() < allowed:
        candidates = _candidates(search, current)
        if not candidates:
            break
        known = {members: value for members, value in search.asked.items() if members}
        gains = expected_improvement(known, candidates, search.game.members, search.value(current))
        tried = candidates[int(gains.argmax())]
        if search.rank(tried) > search.rank(current):
            _note_exchange(search, current, tried)
            current = tried
    return current


def _more_refits(search: Search) -> int:
    """Return how many re-fits the exchange may take, after those of the eviction."""
    spent = search.spent()
    most = _REFITS_A_MODEL * len(search.eligible - search.keep)
    if len(search.eligible - search.keep) > MOST_EXHAUSTIVE_MEMBERS:
        return most - spent
    share = int(_SHARE_OF_SETS * sum(bool(s) and search.fits(s) for s in search.all_sets()))
    return max(min(share, most), _LEAST_REFITS) - spent


def _candidates(search: Search, current: frozenset[str]) -> list[frozenset[str]]:
    """Return the sets within the budget that were not tried: all, or with many models those near the best known."""
    if len(search.eligible - search.keep) <= MOST_EXHAUSTIVE_MEMBERS:
        around = search.all_sets()
    else:
        known = [s for s in search.asked if search.allowed(s) and search.fits(s)]
        centres = sorted(known, key=search.rank, reverse=True)[:_CENTRES]
        around = sorted({near for centre in [current, *centres] for near in _near(search, centre)}, key=search.order)
    return [s for s in around if s and s not in search.asked and search.fits(s)]


def _near(search: Search, centre: frozenset[str]) -> list[frozenset[str]]:
    inside, outside = sorted(centre - search.keep), sorted(search.eligible - centre)
    changed = [centre | {name} for name in outside] + [centre - {name} for name in inside]
    return changed + [(centre - {gone}) | {name} for gone in inside for name in outside]


def _note_exchange(search: Search, current: frozenset[str], better: frozenset[str]) -> None:
    came, went = sorted(better - current), sorted(current - better)
    gain = search.value(better) - search.value(current)
    parts = [came and f"bring back {', '.join(came)}", went and f"let go {', '.join(went)}"]
    search.note(better, f"{' and '.join(part for part in parts if part)}: the metric gains {gain:.4f}")
    for name in went:
        instead = f"with {', '.join(came)} in its place" if came else "without it"
        search.leave(name, f"exchanged: the ensemble gains {gain:.4f} {instead}")


RULES: dict[str, Rule] = {"shap": by_shap, "top_k": top_k, "exhaustive": exhaustive, "greedy": greedy}
