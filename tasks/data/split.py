"""Split pairs by role: fit, validation (chooses the epoch), blend (the aggregator learns from it), and test.

Every role follows from the query's key alone (its locale and normalised text), so a query keeps its role with a new
data version, another order of rows or new neighbours; the official test split is respected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from esci_tournament.registry.errors import DataError
from esci_tournament.tasks.data.dataset import Dataset, salted_uniform

SETTINGS = ("out_of_sample", "blend_share", "validation_share", "folds")  # they determine the roles and key their stage
ROLES = ("fit", "validation", "blend", "test", "quarantine")
OutOfSample = Literal["blend", "kfold"]


@dataclass(frozen=True)
class FitPlan:
    """One fit of a candidate: what it learns from and what it then scores.

    Attributes:
        name: "full", or "fold-0", "fold-1" and so on.
        fit: Rows of `Dataset.pairs` to learn from, int64, ascending.
        validation: Rows that choose the epoch, int64, ascending; no query of them is in `fit`.
        score: Rows to score, int64, ascending; no query of them is in `fit` or `validation`.
    """

    name: str
    fit: np.ndarray
    validation: np.ndarray
    score: np.ndarray


def crossing_rows(pairs: pd.DataFrame) -> np.ndarray:
    """Return which train pairs belong to a query that the test split has too.

    A query is the same by its text (as `query_key` compares it, in one locale) or by its query_id.

    Args:
        pairs: Pairs of a data set; `split`, `query_key` and `query_id` are read.

    Returns:
        bool (n_pairs,), False for pairs of the test split.

    Example:
        >>> split, keys = ["train", "train", "test"], np.array([7, 8, 7], dtype=np.uint64)
        >>> crossing_rows(pd.DataFrame({"split": split, "query_key": keys, "query_id": [1, 2, 3]})).tolist()
        [True, False, False]
    """
    test = (pairs["split"] == "test").to_numpy()
    same_text = np.isin(pairs["query_key"].to_numpy(), pairs["query_key"].to_numpy()[test])
    same_id = np.isin(pairs["query_id"].to_numpy(), pairs["query_id"].to_numpy()[test])
    return ~test & (same_text | same_id)


def assign_roles(
    dataset: Dataset, out_of_sample: OutOfSample, blend_share: float, validation_share: float, folds: int
) -> pd.DataFrame:
    """Give every pair its role.

    With `blend`, a query of the train split is in `blend` with chance `blend_share`; of the others, in `validation`
    with chance `validation_share`; else in `fit`. With `kfold`, every train pair is `fit` and has a fold; each plan
    carves its own validation part (see :func:`fit_plans`). Train pairs of a query that the test split has too are in
    `quarantine`: nothing ever learns from them.

    Args:
        dataset: The data set.
        out_of_sample: How members get scores that the aggregator can learn from: "blend" or "kfold".
        blend_share: Share of the train queries, in [0, 1]; read with "blend".
        validation_share: Share of the remaining train queries, in [0, 1]; read with "blend".
        folds: Number of folds; read with "kfold".

    Returns:
        Frame on the index of `dataset.pairs`: `role` (category, :data:`ROLES`) and `fold` (int8, -1 where none).
    """
    pairs = dataset.pairs
    keys = pairs["query_key"].to_numpy()
    role = np.full(len(pairs), ROLES.index("fit"), dtype=np.int8)
    fold = np.full(len(pairs), -1, dtype=np.int8)
    if out_of_sample == "blend":
        role[salted_uniform(keys, "validation") < validation_share] = ROLES.index("validation")
        role[salted_uniform(keys, "blend") < blend_share] = ROLES.index("blend")
    else:
        fold = (salted_uniform(keys, "fold") * folds).astype(np.int8)
    role[(pairs["split"] == "test").to_numpy()] = ROLES.index("test")
    role[crossing_rows(pairs)] = ROLES.index("quarantine")
    fold[np.isin(role, (ROLES.index("test"), ROLES.index("quarantine")))] = -1
    return pd.DataFrame({"role": pd.Categorical.from_codes(role, ROLES), "fold": fold}, index=pairs.index)


def fit_plans(
    dataset: Dataset, roles: pd.DataFrame, out_of_sample: OutOfSample, validation_share: float
) -> list[FitPlan]:
    """Return the fits that one candidate needs for out-of-sample scores of every pair that is scored.

    `blend`: one plan, "full", scores blend and test. `kfold`: a plan for each fold, fitted on the other folds and
    scoring its own, and "full", fitted on all folds and scoring test. Under `kfold` a query whose hash is below
    `validation_share` is in the validation part of every plan that has it.

    Args:
        dataset: The data set.
        roles: Frame as :func:`assign_roles` returns it, made with the same `out_of_sample`.
        out_of_sample: "blend" or "kfold".
        validation_share: Share of each plan's queries, in [0, 1], that choose the epoch; read with "kfold".

    Returns:
        The plans; "full" is the last.

    Raises:
        DataError: If a part that must hold queries is empty: too few queries for these shares or folds.
    """
    role = roles["role"].to_numpy()
    test = np.flatnonzero(role == "test")
    if out_of_sample == "blend":
        parts = {name: np.flatnonzero(role == name) for name in ("fit", "validation", "blend")}
        _none_empty(dataset, parts)
        score = np.sort(np.concatenate([parts["blend"], test]))
        return [FitPlan("full", parts["fit"], parts["validation"], score)]
    fold = roles["fold"].to_numpy()
    validation = salted_uniform(dataset.pairs["query_key"].to_numpy(), "validation") < validation_share
    plans = []
    for number in range(int(fold.max(initial=-1)) + 1):
        others = (fold >= 0) & (fold != number)
        score = np.flatnonzero(fold == number)
        plans.append(_plan(f"fold-{number}", others, validation, score))
        _none_empty(dataset, {"fit": plans[-1].fit, "validation": plans[-1].validation, plans[-1].name: score})
    plans.append(_plan("full", fold >= 0, validation, test))
    _none_empty(dataset, {"fit": plans[-1].fit, "validation": plans[-1].validation})
    return plans


def trained_keys(pairs: pd.DataFrame, rows: np.ndarray) -> np.ndarray:
    """Return the distinct query keys of some pairs: what a model fitted on them has seen.

    Args:
        pairs: Pairs of a data set; `query_key` is read.
        rows: int64, positions in `pairs`.

    Returns:
        uint64, ascending.
    """
    return np.unique(pairs["query_key"].to_numpy()[rows])


def held_out_keys(pairs: pd.DataFrame, plan: FitPlan) -> np.ndarray:
    """Return the keys of every judged query that a plan does not fit on.

    No edge of such a query may reach the message passing of the plan's models. A query of a quarantined pair is held
    out too. Queries without any judged pair, which only behaviour events have, are not held out.

    Args:
        pairs: All pairs of the data set; `query_key` is read.
        plan: The plan.

    Returns:
        uint64, distinct and ascending.
    """
    keys = pairs["query_key"].to_numpy()
    return np.setdiff1d(keys, keys[plan.fit])


def _plan(name: str, available: np.ndarray, validation: np.ndarray, score: np.ndarray) -> FitPlan:
    return FitPlan(name, np.flatnonzero(available & ~validation), np.flatnonzero(available & validation), score)


def _none_empty(dataset: Dataset, parts: dict[str, np.ndarray]) -> None:
    for name, rows in parts.items():
        if len(rows) == 0:
            queries = dataset.pairs.loc[dataset.pairs["split"] == "train", "query_key"].nunique()
            raise DataError(
                f"the {name} part of the train split holds no pair ({queries} train queries)",
                file=dataset.source,
                advice="add queries, or change blend_share, validation_share or folds",
            )
