"""An ensemble as it is served: members and aggregator in one folder, from raw rows to probabilities and labels."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from esci_tournament.registry.errors import DataError
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
        """Return the ensemble that :func:`write_ensemble` wrote."""
        members = {name: load_candidate(place, device) for name, place in member_folders(folder).items()}
        return cls(members, Aggregator.load(folder / AGGREGATOR))

    def member_scores(self, frame: pd.DataFrame) -> np.ndarray:
        """Return every member's probabilities for the rows of `frame`, float32 (rows, members, 4)."""
        pairs, products = read_rows(frame)
        return np.stack([member.predict_proba(pairs, products) for member in self.members.values()], axis=1)

    def predict(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return columns E, S, C, I (probabilities) and label (a letter), on the index of `frame`.

        Args:
            frame: official column names of the Shopping Queries Dataset; query and product_locale are required,
                product_id and the five text columns are empty when they are absent.

        Raises:
            DataError: if a required column is absent, a query blank or a locale unknown.
        """
        probabilities = self.aggregator.predict_proba(self.member_scores(frame))
        answer = pd.DataFrame(probabilities, columns=list(LABELS), index=frame.index)
        answer["label"] = np.asarray(LABELS)[probabilities.argmax(axis=1)]
        return answer


def member_folders(folder: Path) -> dict[str, Path]:
    """Return candidate id -> folder of the fitted model, in the aggregator's order.

    Raises:
        OSError, ValueError, KeyError: if it is no folder that :func:`write_ensemble` wrote.
    """
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return {one["id"]: folder / one["folder"] for one in manifest["members"]}


def read_rows(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return rows with official column names as the pairs and products that candidates read.

    Raises:
        DataError: if a required column is absent, a query blank or a locale unknown.
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
    # A category knows no "" to fill in.
    return values.astype(object).fillna("").astype(str).reset_index(drop=True)


def _refuse(wrong: pd.Series, problem: str, column: str) -> None:
    rows = np.flatnonzero(wrong.to_numpy())
    if len(rows):
        raise DataError(problem, column=column, rows=rows[:5].tolist(), count=len(rows))


def write_ensemble(folder: Path, members: Sequence[tuple[str, Path]], aggregator: Aggregator) -> None:
    """Write a self-contained ensemble into an empty folder.

    Args:
        folder: where to.
        members: candidate id and folder of the fitted model, in the aggregator's order.
        aggregator: the LightGBM stage.
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
