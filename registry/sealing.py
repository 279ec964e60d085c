"""What is told of a verdict: numbers of the test split only where the challenger may serve.

Whoever sees the numbers of challengers that were refused can tune for the test split, and the error that alpha spending
bounds is no longer bounded. So a verdict is shown to nobody as the ledger has it, but as this module returns it. The
ledger keeps all of it: a verdict is replayed, decided on and reached again from there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from esci_tournament.registry import checks
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.records import VerdictRecord
from esci_tournament.registry.reviews import asks_for_promotion

Payload = dict[str, Any]

WHY = "the numbers of what is not promoted stay sealed, because whoever sees them could tune for this test split"
_OPEN = (checks.BUDGET,)  # checks that no answer on the test split enters
_SAVING = re.compile(r"\((\d+% less (?:memory|time)(?:, \d+% less (?:memory|time))*)\)")


def sealed(verdict: Mapping[str, Any]) -> Payload:
    """Return a verdict without anything that follows from answers on the test split, but its outcome.

    Args:
        verdict: JSON of :class:`~esci_tournament.tasks.ensemble.verdict.Verdict`, and perhaps "judged_again". One that
            is sealed already is returned as it is.

    Returns:
        The same keys. Of the checks the budget's is left, and `reason` says no more than the outcome, whether the
        budget is kept, what is saved if that opened the route for cheaper challengers, and what was missing. `digest`
        is empty, because answers enter it. In addition: "sealed" (True), "queries" and "pairs" of the test split (None
        where they are not known).

    Example:
        >>> told = sealed({"outcome": "refuse", "reason": "macro_f1 changes by -0.0123", "metrics": [], "look": 3})
        >>> told["reason"][:64], told["look"]
        ('refused: the test split does not show that it is better without ', 3)
    """
    if verdict.get("sealed"):
        return dict(verdict)
    whole: Mapping[str, Any] = next((row for row in verdict.get("metrics", ()) if row["scope"] == "all"), {})
    made = list(verdict.get("checks", ()))
    kept = ("outcome", "missing", "look", "level", "alpha_left", "spends_look", "judged_again")
    told = {name: verdict[name] for name in kept if name in verdict}
    return told | {
        "reason": _reason(verdict, made),
        "route": "",
        "checks": [check for check in made if check["name"] in _OPEN],
        "metrics": [],
        "cautions": [],
        "digest": "",
        "sealed": True,
        "queries": whole.get("queries"),
        "pairs": whole.get("pairs"),
    }


def published(
    verdict: Mapping[str, Any], may_serve: bool, members: Collection[str] = (), best_alone: str | None = None
) -> Payload:
    """Return a verdict as it may be told.

    Args:
        verdict: As for :func:`sealed`.
        may_serve: Whether the challenger may be promoted.
        members: Its members, candidate ids.
        best_alone: The model that it was compared with alone, None for no such comparison.

    Returns:
        All of it for a challenger that may serve, but for the numbers of a model that is none of its members; else
        the sealed one.
    """
    if not may_serve:
        return sealed(verdict)
    if best_alone is None or best_alone in members:
        return dict(verdict)
    hidden = {
        check["sentence"]: _hidden(check, best_alone)
        for check in verdict.get("checks", ())
        if check["name"] == checks.SINGLE
    }
    return {
        **verdict,
        "checks": [hidden.get(check["sentence"], check) for check in verdict.get("checks", ())],
        "cautions": [hidden[one]["sentence"] if one in hidden else one for one in verdict.get("cautions", ())],
    }


def of_record(ledger: Ledger, verdict: VerdictRecord) -> Payload:
    """Return a verdict of the ledger as it may be told.

    Args:
        ledger: Where it stands.
        verdict: The verdict.

    Returns:
        What :func:`published` returns. A challenger may serve if its verdict asks for a promotion and it is registered.
    """
    built = ledger.ensembles(verdict.tournament)
    if not built or not asks_for_promotion(verdict):
        return sealed({"outcome": verdict.outcome.replace("-", "_")} | verdict.payload)
    return published(verdict.payload, True, built[-1].payload.get("members", ()), built[-1].payload.get("best_alone"))


def _reason(verdict: Mapping[str, Any], made: Collection[Mapping[str, Any]]) -> str:
    if verdict["outcome"] == "not_evaluable" or verdict.get("spends_look") is False:
        return str(verdict.get("reason", ""))  # what was missing, or that both sides answer alike; no label enters it
    if any(check["name"] == checks.BUDGET and not check["passed"] for check in made):
        return f"refused: it exceeds the budget; {WHY}"
    cheaper = next((check["sentence"] for check in made if check["name"] == checks.CHEAPER), None)
    if cheaper is None:
        return f"refused: the test split does not show that it is better without harm elsewhere; {WHY}"
    saving = _SAVING.search(cheaper)
    words = f"cheaper ({saving[1]})" if saving else "cheaper"
    return f"refused: it is {words}, but the test split does not rule out that it is worse; {WHY}"


def _hidden(check: Mapping[str, Any], best_alone: str) -> Payload:
    said = "it is not shown to be worse" if check["passed"] else "it is worse"
    sentence = f"against {best_alone} alone, the best model, which is no member: {said}; {WHY}"
    kept = {name: check[name] for name in ("name", "passed", "judged") if name in check}
    return kept | {"value": None, "threshold": None, "sentence": sentence}
