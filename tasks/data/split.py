"""Split pairs by role: fit, validation (chooses the epoch), blend (the aggregator learns from it), and test.

Every role follows from the query's key alone (its locale and normalised text), so a query keeps its role with a new
data version, another order of rows or new neighbours; the official test split is respected. Data without a test split
gets one where the setting `test_share` says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from esci_tournament.registry.errors import DataError
from esci_tournament.registry.settings import Settings
from esci_tournament.tasks.data.dataset import Dataset, salted_uniform

# They determine the roles and key their stage
SETTINGS = ("out_of_sample", "blend_share", "validation_share", "folds", "test_share")
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

    A query is the same by its text (as `query_key` compares it) or by its query_id, both within one locale: a shop that
    puts its markets together may have numbered the queries of each from 0.

    Args:
        pairs: Pairs of a data set; `split`, `query_key`, `query_id` and `locale` are read.

    Returns:
        bool (n_pairs,), False for pairs of the test split.

    Example:
        >>> split, keys = ["train", "train", "test"], np.array([7, 8, 7], dtype=np.uint64)
        >>> ids, locales = [1, 3, 3], ["us", "es", "us"]
        >>> frame = pd.DataFrame({"split": split, "query_key": keys, "query_id": ids, "locale": locales})
        >>> crossing_rows(frame).tolist()
        [True, False, False]
    """
    test = (pairs["split"] == "test").to_numpy()
    ids = _numbered(pairs)
    same_text = np.isin(pairs["query_key"].to_numpy(), pairs["query_key"].to_numpy()[test])
    return ~test & (same_text | np.isin(ids, ids[test]))


def copied_rows(pairs: pd.DataFrame, crossing: np.ndarray) -> np.ndarray:
    """Return which train pairs belong to a query that the test split has too, letter by letter or by its query_id.

    These are fewer than :func:`crossing_rows`: queries that differ by case, width or white space alone are one query
    to a model, but two to those who made the split.

    Args:
        pairs: As for :func:`crossing_rows`, and `query`.
        crossing: What that function returned for them, bool (n_pairs,).

    Returns:
        bool (n_pairs,), False for pairs of the test split.
    """
    rows = np.flatnonzero(crossing)
    if not len(rows):
        return crossing
    test = (pairs["split"] == "test").to_numpy()
    keys, ids = pairs["query_key"].to_numpy(), _numbered(pairs)
    beside = pairs[test & np.isin(keys, keys[rows])]
    asked = set(zip(beside["locale"].astype(str), beside["query"], strict=True))
    train = pairs.iloc[rows]
    spelt = [pair in asked for pair in zip(train["locale"].astype(str), train["query"], strict=True)]
    found = np.zeros(len(pairs), dtype=bool)
    found[rows] = np.array(spelt, dtype=bool) | np.isin(ids[rows], ids[test])
    return found


def _numbered(pairs: pd.DataFrame) -> np.ndarray:
    """Return a number for each (locale, query_id), int64 (n_pairs,), from 0 without gaps."""
    ids, _ = pd.factorize(pairs["query_id"])
    locales, names = pd.factorize(pairs["locale"])
    return pd.factorize(ids * (len(names) + 1) + locales)[0].astype(np.int64)


def drawn_test(pairs: pd.DataFrame, share: float) -> np.ndarray:
    """Return which pairs are test pairs in data that has no test split, drawn by whole queries.

    Queries of one text or of one query_id of a locale stay together: they are drawn by the smallest of their keys.

    Args:
        pairs: Pairs of a data set; `query_key`, `query_id` and `locale` are read.
        share: Share of the queries, in [0, 1].

    Returns:
        bool (n_pairs,).
    """
    texts, keys = pd.factorize(pairs["query_key"], sort=True)
    ids = _numbered(pairs)
    number = len(keys) + int(ids.max(initial=-1)) + 1
    edges = coo_array((np.ones(len(pairs), np.int8), (texts, len(keys) + ids)), shape=(number, number))
    together = connected_components(edges, directed=False)[1]
    # Keys ascend, so the first of a component is its smallest
    first = np.unique(together[: len(keys)], return_index=True)[1]
    smallest = np.zeros(int(together.max(initial=-1)) + 1, np.uint64)
    smallest[together[first]] = np.asarray(keys, np.uint64)[first]
    return salted_uniform(smallest[together[texts]], "test") < share


def stored_under(settings: Settings) -> dict[str, Any]:
    """Return the settings that roles are stored under; `test_share` only where it is set.

    Releases before that setting have stored roles without it, and what was fitted by them is found by their key.

    Args:
        settings: Those of :data:`SETTINGS`.

    Returns:
        Name -> value, arguments of :func:`assign_roles`.
    """
    found = settings.model_dump(include=set(SETTINGS))
    return {name: value for name, value in found.items() if name != "test_share" or value}


def assign_roles(
    dataset: Dataset,
    out_of_sample: OutOfSample,
    blend_share: float,
    validation_share: float,
    folds: int,
    test_share: float = 0.0,
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
        test_share: Share of the queries, in [0, 1], that are test queries where the data has no test split. The column
            `split` of the data stays as it is: who has learnt from its train split has learnt from these queries too.

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
    test = (pairs["split"] == "test").to_numpy()
    if test_share and not test.any():
        test = drawn_test(pairs, test_share)
    role[test] = ROLES.index("test")
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
