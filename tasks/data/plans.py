"""Write the roles of pairs and the fit plans to disk, for worker processes to read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from esci_tournament.tasks.data.split import FitPlan
from esci_tournament.tasks.data.store import open_dataset, read_frame, write_frame

_JUDGED = ("example_id", "label", "query_key", "locale", "product", "product_id")
_PARTS = ("fit", "validation", "score")


def write_plans(folder: Path, roles: pd.DataFrame, plans: Sequence[FitPlan]) -> None:
    """Write every pair's role and every plan's rows into an existing, empty folder.

    Args:
        folder: Gets `roles.arrow`, `plans.json` with the names of the plans, and `<plan>.<part>.npy` for each plan and
            each of the parts fit, validation and score.
        roles: Frame as :func:`esci_tournament.tasks.data.split.assign_roles` returns it.
        plans: The plans, with distinct names.
    """
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
    """Return the roles that :func:`write_plans` wrote.

    Args:
        folder: The folder that it wrote to.

    Returns:
        Frame with `role` (category) and `fold` (int8), in the order of the pairs, on a RangeIndex.
    """
    return read_frame(folder / "roles.arrow")


def judged_pairs(dataset: Path, roles: Path, learns: bool) -> pd.DataFrame:
    """Return the pairs that members have scored out of sample, with their labels.

    Args:
        dataset: Folder of the data, as :func:`esci_tournament.tasks.data.store.save_dataset` wrote it.
        roles: Folder of the pairs' roles, as :func:`write_plans` wrote it.
        learns: Whether to return the pairs that the aggregator learns from (blend, or those with a fold); otherwise the
            test pairs.

    Returns:
        Frame with `example_id`, `label`, `query_key`, `locale`, `product` (row in the products, below 0 where it is not
        among them) and `product_id`, in the order and with the index of the data's pairs.
    """
    found = read_roles(roles)
    chosen = (found["role"] == "blend") | (found["fold"] >= 0) if learns else found["role"] == "test"
    return open_dataset(dataset).pairs.loc[chosen, list(_JUDGED)]


def queries_of_test(dataset: Path, roles: Path) -> pd.DataFrame:
    """Return the queries of the test part, and how often each is asked.

    Args:
        dataset: As for :func:`judged_pairs`.
        roles: The same.

    Returns:
        Frame with `query_key`, `locale` and `frequency` (its events in the behaviour log, 0 without one), one row a
        query.
    """
    data = open_dataset(dataset)
    found = data.pairs.loc[read_roles(roles)["role"] == "test", ["query_key", "locale"]].drop_duplicates("query_key")
    asked = {} if data.events is None else data.events["query_key"].value_counts()
    return found.assign(frequency=found["query_key"].map(asked).fillna(0).astype(np.int64)).reset_index(drop=True)
