"""Scores of a model that cannot be shared: a parquet file of example_id and four probabilities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from esci_tournament.registry.errors import CandidateError
from esci_tournament.registry.labels import LABELS
from esci_tournament.registry.specs import CandidateSpec
from esci_tournament.tasks.ensemble.scores import check_distributions
from esci_tournament.tasks.families.protocol import Candidate, FitData
from esci_tournament.tasks.families.score_file.reading import ID, check_file, read_file
from esci_tournament.tasks.families.score_file.spec import ScoresSpec


class ScoreFile(Candidate):
    """A candidate that looks its answers up by `example_id`.

    A pair that is not in the file gets the class shares of the pairs it was fitted on; :meth:`cover` counts those
    that are in it. Selection never keeps it unless the setting `keep_score_files` says so, because it cannot score a
    pair that was not scored in advance.
    """

    forkable = True
    answers_new_pairs = False

    spec: ScoresSpec

    def __init__(self, spec: ScoresSpec) -> None:
        self.spec = spec
        self._ids = np.zeros(0, dtype=np.int64)
        self._probabilities = np.zeros((0, len(LABELS)), dtype=np.float32)
        self._mix = np.full(len(LABELS), 1 / len(LABELS), dtype=np.float32)

    @classmethod
    def check(cls, spec: CandidateSpec) -> None:
        """Check the file's columns and types.

        Raises:
            SpecError: as :func:`check_score_file`.
        """
        assert isinstance(spec, ScoresSpec)
        check_score_file(spec)

    @classmethod
    def describe(cls, spec: CandidateSpec) -> str:
        """Return the file's name and what its model has seen."""
        assert isinstance(spec, ScoresSpec)
        return f"{Path(spec.file).name}, trained on {spec.trained_on.replace('_', ' ')}"

    def fit(self, data: FitData) -> Self:
        """Read and check the file; only the class shares are learnt, with add-one smoothing.

        Args:
            data: `pairs["label"]` gives the class shares; nothing else is read.

        Returns:
            The candidate itself.

        Raises:
            SpecError: if the file is missing, no parquet, damaged or too large, or its columns are not example_id, E,
                S, C and I.
            CandidateError: if an id is there twice, a row is no distribution, or all rows are the same.
        """
        data.progress(0.0, "reading the score file")
        ids, values = read_file(Path(self.spec.file))
        if len(np.unique(ids)) != len(ids):
            raise CandidateError(f"{self.spec.file}: {len(ids) - len(np.unique(ids))} example ids stand there twice")
        check_distributions(self.spec.name, values, ids)
        if len(ids) > 1 and (np.ptp(values, axis=0) == 0).all():
            raise CandidateError(f"{self.spec.file}: its scores are constant, the same for each of {len(ids)} pairs")
        order = np.argsort(ids)
        self._ids, self._probabilities = ids[order], values[order]
        counts = np.bincount(data.pairs["label"].to_numpy(), minlength=len(LABELS)) + 1.0
        self._mix = (counts / counts.sum()).astype(np.float32)
        return self

    def predict_proba(self, pairs: pd.DataFrame, products: pd.DataFrame) -> np.ndarray:
        """Return the file's probabilities, and the class shares for pairs it does not have.

        Args:
            pairs: `example_id` is looked up; a frame without that column gets the class shares in every row.
            products: not read.

        Returns:
            float32 (len(pairs), 4), order E, S, C, I.
        """
        answer = np.tile(self._mix, (len(pairs), 1))
        place, found = self._look_up(pairs)
        answer[found] = self._probabilities[place[found]]
        return answer

    def cover(self, pairs: pd.DataFrame) -> int:
        """Count the pairs that are in the file.

        Args:
            pairs: `example_id` is looked up.

        Returns:
            A number of pairs.

        Raises:
            CandidateError: if it is 0: the file holds none of this data.
        """
        _, found = self._look_up(pairs)
        if not found.any():
            raise CandidateError(
                f"{self.spec.file} covers none of the {len(pairs)} pairs to be scored; are its example ids those of "
                "this data, and does it have the pairs that are held out?"
            )
        return int(found.sum())

    def save(self, folder: Path) -> None:
        """Write ids, probabilities and class shares as npy, and the spec as JSON."""
        np.save(folder / "ids.npy", self._ids)
        np.save(folder / "probabilities.npy", self._probabilities)
        np.save(folder / "mix.npy", self._mix)
        (folder / "spec.json").write_text(self.spec.model_dump_json(), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Self:
        """Return what :meth:`save` wrote; `device` is not used."""
        model = cls(ScoresSpec.model_validate(json.loads((folder / "spec.json").read_text(encoding="utf-8"))))
        model._ids, model._probabilities, model._mix = (
            np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("ids", "probabilities", "mix")
        )
        return model

    def parameters(self) -> int:
        """Return 0: a table of scores has no parameters."""
        return 0

    def _look_up(self, pairs: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        if ID not in pairs or not len(self._ids):  # a pair that is served has no id
            return np.zeros(len(pairs), dtype=np.int64), np.zeros(len(pairs), dtype=bool)
        wanted = pairs[ID].to_numpy()
        place = np.minimum(np.searchsorted(self._ids, wanted), len(self._ids) - 1)
        return place, self._ids[place] == wanted


def check_score_file(spec: ScoresSpec) -> None:
    """Check columns and types from the file's footer alone.

    Args:
        spec: names the file.

    Raises:
        SpecError: if it is missing, no parquet, too large, or its columns are others.
    """
    check_file(Path(spec.file))
