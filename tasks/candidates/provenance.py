"""Record which queries a model has seen, learnt here or declared by its owner: its scores of them are in-sample."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from esci_tournament.registry.errors import DataError, LeakError
from esci_tournament.registry.specs import NamedSpec
from esci_tournament.tasks.candidates.listed_queries import read_listed
from esci_tournament.tasks.families.declared import DeclaredSpec
from esci_tournament.tasks.families.protocol import FitData

KEYS, IDS, SPLITS = "trained_keys.npy", "trained_query_ids.npy", "trained_splits.json"
EDGES = "trained_edge_keys.npy"


@dataclass(frozen=True)
class Seen:
    """Queries that a model was trained on.

    Attributes:
        keys: Query keys, uint64 (n,).
        ids: Query ids, int64 (n,).
        splits: Official splits that it knows as a whole.
        edges: Keys of the queries whose behaviour its graph holds, uint64 (n,), whether they are judged or not.

    Example:
        >>> pairs = pd.DataFrame({"query_key": np.array([7, 8], np.uint64), "query_id": [1, 2], "split": "train"})
        >>> Seen(keys=np.array([7], np.uint64)).of(pairs).tolist()
        [True, False]
    """

    keys: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    splits: tuple[str, ...] = ()
    edges: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))

    def write(self, folder: Path) -> None:
        """Write the queries into the folder of a model, one file per attribute."""
        np.save(folder / KEYS, self.keys)
        np.save(folder / IDS, self.ids)
        np.save(folder / EDGES, self.edges)
        (folder / SPLITS).write_text(json.dumps(self.splits), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Seen:
        """Return what :meth:`write` wrote; the file of the keys must be there, a missing other one counts as empty."""
        ids, splits, edges = folder / IDS, folder / SPLITS, folder / EDGES
        return cls(
            np.load(folder / KEYS),
            np.load(ids) if ids.is_file() else np.zeros(0, np.int64),
            tuple(json.loads(splits.read_text(encoding="utf-8"))) if splits.is_file() else (),
            np.load(edges) if edges.is_file() else np.zeros(0, np.uint64),
        )

    @staticmethod
    def whole(folder: Path) -> bool:
        """Tell whether all that a model has seen is on record in its folder, keys of edges included."""
        return (folder / EDGES).is_file()

    def of(self, pairs: pd.DataFrame) -> np.ndarray:
        """Return which pairs belong to a query that was seen.

        Args:
            pairs: Frame with `query_key`, `query_id` and `split`.

        Returns:
            bool (n_pairs,).
        """
        return (
            np.isin(pairs["query_key"].to_numpy(), self.keys)
            | np.isin(pairs["query_key"].to_numpy(), self.edges)
            | np.isin(pairs["query_id"].to_numpy(), self.ids)
            | np.isin(pairs["split"].astype(str).to_numpy(), self.splits)
        )

    def check(self, pairs: pd.DataFrame, name: str) -> None:
        """Check that no pair belongs to a query that was seen.

        Args:
            pairs: Frame with `example_id`, `query_key`, `query_id` and `split`.
            name: How the message calls the model.

        Raises:
            LeakError: If one does; the message has the first pair and how many there are.
        """
        seen = self.of(pairs)
        if seen.any():
            first = int(pairs["example_id"].to_numpy()[np.argmax(seen)])
            raise LeakError(
                f"{name}: {int(seen.sum())} of {len(pairs)} pairs to be scored belong to a query it was trained on "
                f"(first: example_id {first}); in-sample scores are refused: train it without these queries"
            )


def what_it_saw(spec: NamedSpec, data: FitData) -> Seen:
    """Return what a model has seen after its fit: what it was given, or what its owner declares.

    Args:
        spec: The spec of the model.
        data: What it was fitted on; not read for a declared model.

    Returns:
        The queries, without `edges`.

    Raises:
        SpecError: If the declared list of queries cannot be read.
    """
    if not isinstance(spec, DeclaredSpec):
        return Seen(np.union1d(data.pairs["query_key"].to_numpy(), data.validation["query_key"].to_numpy()))
    if spec.trained_queries:
        return read_queries(Path(spec.trained_queries))
    return Seen(splits=("train",) if spec.trained_on == "train_split" else ())


def read_queries(path: Path) -> Seen:
    """Return the queries that a parquet file lists.

    Args:
        path: File with a column `query_id` of integers, or else with `query` and `product_locale`.

    Returns:
        The queries, as `ids` or as `keys`.

    Raises:
        SpecError: If the file cannot be read, has neither, lists nothing, or is larger than it may be.
    """
    keys, ids = read_listed(path)
    return Seen(keys, ids)


def without_seen(roles: pd.DataFrame, pairs: pd.DataFrame, models: Iterable[Seen]) -> pd.DataFrame:
    """Return the roles, with every blend or test pair in quarantine whose query one of the models has seen.

    Args:
        roles: `role` and `fold` of each pair, as `esci_tournament.tasks.data.split.assign_roles` gives them.
        pairs: The pairs, in the same order.
        models: What each model has seen.

    Returns:
        A new frame with the columns and the index of `roles`.

    Raises:
        DataError: If no pair is left for the aggregator (blend), or none for the judge (test).
    """
    judged = roles["role"].isin(("blend", "test")).to_numpy()
    seen = np.zeros(int(judged.sum()), dtype=bool)
    for model in models:
        seen |= model.of(pairs[judged])
    role = roles["role"].copy()
    role.iloc[np.flatnonzero(judged)[seen]] = "quarantine"
    for name in ("blend", "test"):
        if not (role == name).any():
            raise DataError(
                f"no pair of the {name} part is left: the models, fitted on older data, have seen all of its queries",
                count=int((roles["role"] == name).sum()),
                advice="fit them again with the setting refit, or bring queries that are new to them",
            )
    return roles.assign(role=role)


def declaration(spec: NamedSpec) -> dict[str, Any]:
    """Return what an owner declares of a model trained elsewhere.

    Args:
        spec: The spec of the model.

    Returns:
        `trained_on` and `provenance` of the spec; {} for a model that is trained here.
    """
    if not isinstance(spec, DeclaredSpec):
        return {}
    return {"trained_on": spec.trained_on, "provenance": spec.provenance}
