"""Files that an ensemble needs to serve in real time, made at promotion: aggregators of subsets, and early exit."""

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
SETTINGS = ("subsets_limit", "early_exit_risk", "primary_metric")  # what equipment depends on
_LEAST_MILLISECONDS = 1e-3  # members below this cost are ordered by their utility


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

    Raises:
        LeakError: if a score is missing or not out of sample.
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
        settings.primary_metric,
    ).save(folder)


def exit_order(members: Sequence[str], worth: Mapping[str, Any], costs: Mapping[str, Cost]) -> tuple[str, ...]:
    """Return the members by falling utility a millisecond; members without a measured cost come last.

    Args:
        members: names.
        worth: has "members", a list of facts with "member" and "utility" (share, 0 to 1); missing members count as 0.
        costs: of the members that were measured.

    Returns:
        The names; ties are ordered by name.

    Example:
        >>> worth = {"members": [{"member": "big", "utility": 0.6}, {"member": "small", "utility": 0.4}]}
        >>> exit_order(["big", "small"], worth, {"big": Cost(900, 60), "small": Cost(90, 10)})
        ('small', 'big')
    """
    utility = {one["member"]: float(one["utility"]) for one in worth["members"]}

    def rank(member: str) -> tuple[bool, float, str]:
        worth_of = utility.get(member, 0.0)
        if member not in costs:
            return True, -worth_of, member
        return False, -worth_of / max(costs[member].milliseconds, _LEAST_MILLISECONDS), member

    return tuple(sorted(members, key=rank))


def measured(members: Sequence[str], costs: Mapping[str, Cost]) -> bool:
    """Return whether each member has a measured cost."""
    return all(member in costs for member in members)


def copy_equipment(source: Path, ensemble: Path) -> None:
    """Copy what :func:`make_equipment` wrote into the folder of an ensemble.

    Args:
        source: the folder that :func:`make_equipment` filled.
        ensemble: an existing folder of an ensemble.
    """
    shutil.copytree(source, ensemble, ignore=shutil.ignore_patterns("stage.json"), dirs_exist_ok=True)
