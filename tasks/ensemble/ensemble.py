"""An ensemble that can be served: members and aggregator in one folder, from raw rows to probabilities and labels."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from esci_tournament.registry.errors import StoreError
from esci_tournament.registry.files import folder_name
from esci_tournament.registry.foreign import below, read_json_file
from esci_tournament.registry.labels import LABELS
from esci_tournament.tasks.ensemble.aggregate import Aggregator
from esci_tournament.tasks.ensemble.rows import pairs_and_products, problems_of, raise_for, rows_of
from esci_tournament.tasks.families.loading import load_candidate
from esci_tournament.tasks.families.protocol import Candidate

MANIFEST, AGGREGATOR = "ensemble.json", "aggregator"


@dataclass(frozen=True)
class Ensemble:
    """Members in the aggregator's order, and the aggregator.

    Attributes:
        members: candidate id ("name/version") -> fitted model.
        aggregator: the LightGBM stage over their scores.
    """

    members: dict[str, Candidate]
    aggregator: Aggregator

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Ensemble:
        """Return the ensemble that :func:`write_ensemble` wrote.

        Args:
            folder: where it was written.
            device: torch device of the members, such as "cpu" or "cuda:0".

        Returns:
            The ensemble, with all members loaded.

        Raises:
            OSError: if there is no manifest.
            CandidateError: if a member cannot be loaded.
            SpecError: if a member's spec cannot be read.
            StoreError: if the manifest is damaged, or the aggregator missing or damaged.
        """
        members = {name: load_candidate(place, device) for name, place in member_folders(folder).items()}
        return cls(members, Aggregator.load(folder / AGGREGATOR))

    def member_scores(self, frame: pd.DataFrame) -> np.ndarray:
        """Return every member's probabilities.

        Args:
            frame: as :meth:`predict` takes it.

        Returns:
            float32 (rows, members, 4), members in the aggregator's order, classes E, S, C, I.

        Raises:
            DataError: if a required column is absent, a query blank or a locale unknown.
        """
        rows = rows_of(frame)
        raise_for(problems_of(rows))
        pairs, products = pairs_and_products(rows)
        return np.stack([member.predict_proba(pairs, products) for member in self.members.values()], axis=1)

    def predict(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return probabilities and label of each row.

        Args:
            frame: official column names of the Shopping Queries Dataset; query and product_locale are required,
                product_id and the five text columns are empty when they are absent.

        Returns:
            Columns E, S, C, I (float32 probabilities) and label (a letter), on the index of `frame`.

        Raises:
            DataError: if a required column is absent, a query blank or a locale unknown.
        """
        probabilities = self.aggregator.predict_proba(self.member_scores(frame))
        answer = pd.DataFrame(probabilities, columns=list(LABELS), index=frame.index)
        answer["label"] = np.asarray(LABELS)[self.aggregator.labels(probabilities)]
        return answer


def member_folders(folder: Path) -> dict[str, Path]:
    """Return candidate id -> folder of the fitted model, in the aggregator's order.

    Args:
        folder: of an ensemble.

    Returns:
        Paths below `folder`.

    Raises:
        OSError: if there is no manifest.
        StoreError: if the manifest is damaged, or names a folder elsewhere.
    """
    try:
        manifest = read_json_file(folder / MANIFEST)
        return {str(one["id"]): below(folder, one["folder"]) for one in manifest["members"]}
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{folder / MANIFEST} cannot be read: {error}; let a tournament make the ensemble anew"
        ) from error


def write_ensemble(folder: Path, members: Sequence[tuple[str, Path]], aggregator: Aggregator) -> None:
    """Write a self-contained ensemble into an empty folder.

    Args:
        folder: gets ensemble.json, `members/` and `aggregator/`.
        members: candidate id and folder of the fitted model, in the aggregator's order.
        aggregator: the LightGBM stage.

    Raises:
        StoreError: if the aggregator cannot be written.
    """
    entries = []
    for candidate, source in members:
        place = f"members/{folder_name(candidate)}"
        shutil.copytree(source, folder / place, ignore=shutil.ignore_patterns("stage.json", "trained_*"))
        entries.append({"id": candidate, "folder": place})
    (folder / AGGREGATOR).mkdir()
    aggregator.save(folder / AGGREGATOR)
    manifest = {"members": entries, "labels": list(LABELS)}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
