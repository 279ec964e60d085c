"""An ensemble that can be served: members and aggregator in one folder, from raw rows to probabilities and labels."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from esci_tournament.registry.errors import DataError, StoreError
from esci_tournament.registry.foreign import below, read_json_file
from esci_tournament.registry.labels import LABELS
from esci_tournament.tasks.data.dataset import LOCALES
from esci_tournament.tasks.ensemble.aggregate import Aggregator
from esci_tournament.tasks.families.loading import load_candidate
from esci_tournament.tasks.families.protocol import Candidate

MANIFEST, AGGREGATOR = "ensemble.json", "aggregator"
REQUIRED = ("query", "product_locale")
TEXT_COLUMNS = {
    "title": "product_title",
    "brand": "product_brand",
    "color": "product_color",
    "bullets": "product_bullet_point",
    "description": "product_description",
}
INPUT_COLUMNS = (*REQUIRED, "product_id", *TEXT_COLUMNS.values())


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
        pairs, products = read_rows(frame)
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


def read_rows(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return rows with official column names as the pairs and products that candidates read.

    Args:
        frame: columns query and product_locale; product_id and the text columns are empty when they are absent.

    Returns:
        Pairs (query, locale, product: int32 row of the products) in the order of `frame`, on a new index, and the
        distinct products (product_id, locale, title, brand, color, bullets, description).

    Raises:
        DataError: if a required column is absent, a query blank or a locale unknown.

    Example:
        >>> frame = pd.DataFrame({"query": ["lamp", "desk lamp"], "product_locale": "us", "product_title": "Lamp"})
        >>> pairs, products = read_rows(frame)
        >>> pairs["product"].tolist(), len(products)
        ([0, 0], 1)
    """
    for column in REQUIRED:
        if column not in frame:
            raise DataError("a required column is absent", column=column, advice=f"needed: {', '.join(REQUIRED)}")
    texts = {name: _text(frame, column) for name, column in (("product_id", "product_id"), *TEXT_COLUMNS.items())}
    products = pd.DataFrame({"product_id": texts.pop("product_id"), "locale": _text(frame, "product_locale")} | texts)
    queries = _text(frame, "query")
    _refuse(queries.str.strip() == "", "the query is blank", "query")
    _refuse(~products["locale"].isin(LOCALES), f"the locale is none of {', '.join(LOCALES)}", "product_locale")
    # A product that stands in many rows is encoded once.
    products["row"] = products.groupby(list(products.columns), sort=False).ngroup()
    rows = products.pop("row").to_numpy(np.int32)
    distinct = products.iloc[np.unique(rows, return_index=True)[1]].reset_index(drop=True)
    pairs = pd.DataFrame({"query": queries, "locale": products["locale"], "product": rows})
    return pairs, distinct


def _text(frame: pd.DataFrame, column: str) -> pd.Series:
    values = frame[column] if column in frame else pd.Series("", index=frame.index)
    # A categorical column has no "" to fill in.
    return values.astype(object).fillna("").astype(str).reset_index(drop=True)


def _refuse(wrong: pd.Series, problem: str, column: str) -> None:
    rows = np.flatnonzero(wrong.to_numpy())
    if len(rows):
        raise DataError(problem, column=column, rows=rows[:5].tolist(), count=len(rows))


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
        place = f"members/{candidate.replace('/', '-')}"
        shutil.copytree(source, folder / place, ignore=shutil.ignore_patterns("stage.json", "trained_*"))
        entries.append({"id": candidate, "folder": place})
    (folder / AGGREGATOR).mkdir()
    aggregator.save(folder / AGGREGATOR)
    manifest = {"members": entries, "labels": list(LABELS)}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
