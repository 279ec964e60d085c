"""Two versions of the ensemble side by side: members, published numbers, cost, data and verdict."""

from __future__ import annotations

from typing import Any

from esci_tournament.registry.errors import NotFoundError
from esci_tournament.registry.roll import recorded_facts
from esci_tournament.registry.tournaments import published_metrics, verdict_told
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.ensemble.budget import Budget, Cost

Document = dict[str, Any]


def compare(workspace: Workspace, first: int, second: int) -> Document:
    """Return two versions of the ensemble side by side.

    Numbers of the test split are those that were published; both sides are of one tournament where one has measured
    both, on the same test pairs, and a difference is given then alone.

    Args:
        workspace: The home whose ledger and model registry are read.
        first: Number of a version.
        second: Number of the version that it is compared with.

    Returns:
        JSON-able: `first` and `second` with `version`, `members`, `tournament`, `is_champion`, `data_version`,
        `verdict` ({} for none), `cost` (`memory_mib`, `milliseconds` a page of 40, `kind`; None where not known) and
        `measured` (`tournament` and `data_version` of its numbers, None without any); `came`, `went`, `stayed`: members
        of the first against the second; `same_pairs`; `metrics`: `scope`, `metric`, `first`, `second`, `difference`
        (None unless `same_pairs`).

    Raises:
        NotFoundError: If one of them is unknown.
    """
    told = published_metrics(workspace.ledger, workspace.settings.ensemble_name, {first, second})
    sides = [_side(workspace, version) for version in (first, second)]
    shared = {one["tournament"] for one in told[second]}
    both = next((one["tournament"] for one in told[first] if one["tournament"] in shared), None)
    chosen = [
        next((one for one in told[version] if both in (None, one["tournament"])), {}) for version in (first, second)
    ]
    for side, one in zip(sides, chosen, strict=True):
        side["measured"] = {key: one[key] for key in ("tournament", "data_version")} if one else None
    mine, theirs = (side["members"] for side in sides)
    return {
        "first": sides[0],
        "second": sides[1],
        "came": [member for member in mine if member not in theirs],
        "went": [member for member in theirs if member not in mine],
        "stayed": [member for member in mine if member in theirs],
        "same_pairs": both is not None,
        "metrics": _metrics(*(one.get("metrics", {}) for one in chosen), comparable=both is not None),
    }


def _side(workspace: Workspace, number: int) -> Document:
    try:
        version = workspace.roll.ensemble(number)
    except NotFoundError as error:
        known = ", ".join(map(str, sorted(workspace.roll.numbers()))) or "none"
        raise NotFoundError(f"{workspace.settings.ensemble_name} has no version {number}; it has: {known}") from error
    facts, ledger = recorded_facts(workspace.ledger, version), workspace.ledger
    champion = ledger.champion(workspace.settings.ensemble_name)
    verdict = verdict_told(ledger, version.tournament) if version.tournament else {}
    return {
        "version": version.version,
        "members": list(version.members),
        "tournament": version.tournament or None,
        "is_champion": champion is not None and champion.version == number,
        "data_version": facts.get("data"),
        "verdict": verdict,
        "cost": _cost(facts, version.members),
    }


def _cost(facts: Any, members: tuple[str, ...]) -> Document | None:
    known = {name: Cost(*values) for name, values in facts.get("costs", {}).items() if name in members}
    if set(known) != set(members) or len({one.kind for one in known.values()}) != 1:
        return None
    used = Budget(execution=facts.get("settings", {}).get("execution", "series")).used(members, known)
    return {"memory_mib": used.memory_mib, "milliseconds": used.milliseconds, "kind": used.kind}


def _metrics(first: Document, second: Document, *, comparable: bool) -> list[Document]:
    rows = []
    for scope in dict.fromkeys([*first, *second]):
        mine, theirs = first.get(scope, {}), second.get(scope, {})
        for metric in dict.fromkeys([*mine, *theirs]):
            values = mine.get(metric), theirs.get(metric)
            gap = values[0] - values[1] if comparable and None not in values else None
            rows.append({"scope": scope, "metric": metric, "first": values[0], "second": values[1], "difference": gap})
    return rows
