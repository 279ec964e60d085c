"""What an ensemble needs to serve in real time, made at promotion: aggregators of subsets, and early exit."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from esci_tournament.registry.settings import Settings
from esci_tournament.tasks.ensemble.aggregate import Aggregator
from esci_tournament.tasks.ensemble.budget import Cost
from esci_tournament.tasks.ensemble.exit_calibration import calibrate_exit
from esci_tournament.tasks.ensemble.scores import MemberScores, stack
from esci_tournament.tasks.ensemble.subsets import Subsets

SUBSETS = "subsets"
SETTINGS = ("subsets_limit", "early_exit_risk", "primary_metric")  # what equipment follows from, and is stored under
_LEAST_MILLISECONDS = 1e-3  # what costs nothing comes first, by its worth


def make_equipment(
    folder: Path,
    pairs: pd.DataFrame,
    scores: Sequence[MemberScores],
    aggregator: Aggregator,
    worth: Mapping[str, Any],
    costs: Mapping[str, Cost],
    settings: Settings,
) -> None:
    """Write `subsets/` and `early_exit.json` into an empty folder.

    Args:
        folder: where to.
        pairs: the pairs that the aggregator has learnt from: example_id, label, query_key.
        scores: of every member, out of sample on `pairs`.
        aggregator: that of all members.
        worth: facts of the ensemble's worth, as `Challenge.result["worth"]`.
        costs: of the members that were measured.
        settings: those of `SETTINGS`.
    """
    order = exit_order(aggregator.members, worth, costs)
    by_name = {one.member: one for one in scores}
    columns = stack([by_name[name] for name in aggregator.members], pairs["example_id"].to_numpy())
    labels, groups = pairs["label"].to_numpy(), pairs["query_key"].to_numpy()
    subsets = Subsets.fit(
        columns,
        labels,
        groups,
        aggregator,
        order,
        limit=settings.subsets_limit,
        metric=settings.primary_metric,
        threads=settings.cores,
    )
    subsets.save(folder / SUBSETS)
    prefixes = [frozenset(order[:count]) for count in range(1, len(order) + 1)]
    out_of_fold = {frozenset(members): found for members, found in subsets.out_of_fold.items()}
    calibrate_exit(
        order,
        [out_of_fold[prefix] for prefix in prefixes],
        labels[subsets.rows],
        groups[subsets.rows],
        [costs[member].milliseconds if measured(order, costs) else 1.0 for member in order],
        settings.early_exit_risk,
        aggregator.parameters.folds,
        settings.primary_metric,
    ).save(folder)


def exit_order(members: Sequence[str], worth: Mapping[str, Any], costs: Mapping[str, Cost]) -> tuple[str, ...]:
    """Return the members by falling utility a millisecond; who was not measured comes last."""
    utility = {one["member"]: float(one["utility"]) for one in worth["members"]}

    def rank(member: str) -> tuple[bool, float, str]:
        worth_of = utility.get(member, 0.0)
        if member not in costs:
            return True, -worth_of, member
        return False, -worth_of / max(costs[member].milliseconds, _LEAST_MILLISECONDS), member

    return tuple(sorted(members, key=rank))


def measured(members: Sequence[str], costs: Mapping[str, Cost]) -> bool:
    """Return whether the time of each member is known."""
    return all(member in costs for member in members)


def copy_equipment(source: Path, ensemble: Path) -> None:
    """Put what :func:`make_equipment` wrote beside the members of an ensemble."""
    shutil.copytree(source, ensemble, ignore=shutil.ignore_patterns("stage.json"), dirs_exist_ok=True)
