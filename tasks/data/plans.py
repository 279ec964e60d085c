"""Roles and fit plans on disk, as the workers read them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from esci_tournament.tasks.data.split import FitPlan
from esci_tournament.tasks.data.store import open_dataset, read_frame, write_frame

_PARTS = ("fit", "validation", "score")


def write_plans(folder: Path, roles: pd.DataFrame, plans: Sequence[FitPlan]) -> None:
    """Write every pair's role and every plan's rows into an existing, empty folder."""
    write_frame(roles, folder / "roles.arrow")
    for plan in plans:
        for part in _PARTS:
            np.save(folder / f"{plan.name}.{part}.npy", getattr(plan, part))
    (folder / "plans.json").write_text(json.dumps([plan.name for plan in plans]), encoding="utf-8")


def read_plans(folder: Path) -> list[FitPlan]:
    """Return the plans that :func:`write_plans` wrote, in their order; row numbers are memory-mapped."""
    names = json.loads((folder / "plans.json").read_text(encoding="utf-8"))
    return [
        FitPlan(name, *(np.load(folder / f"{name}.{part}.npy", mmap_mode="r") for part in _PARTS)) for name in names
    ]


def read_roles(folder: Path) -> pd.DataFrame:
    """Return the roles that :func:`write_plans` wrote: `role` (category) and `fold` (int8)."""
    return read_frame(folder / "roles.arrow")


def judged_pairs(dataset: Path, roles: Path, learns: bool) -> pd.DataFrame:
    """Return `example_id`, `label`, `query_key` and `locale` of pairs that members have scored out of sample.

    Args:
        dataset: folder of the data.
        roles: folder of the pairs' roles.
        learns: the pairs that the aggregator learns from; else the test pairs.
    """
    found = read_roles(roles)
    chosen = (found["role"] == "blend") | (found["fold"] >= 0) if learns else found["role"] == "test"
    return open_dataset(dataset).pairs.loc[chosen, ["example_id", "label", "query_key", "locale"]]
