"""Scores of a model that cannot be shared: a parquet file of example_id and four probabilities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet

from esci_tournament.registry.errors import CandidateError, SpecError
from esci_tournament.registry.labels import LABELS
from esci_tournament.registry.specs import CandidateSpec
from esci_tournament.tasks.ensemble.scores import check_distributions
from esci_tournament.tasks.families.protocol import Candidate, FitData
from esci_tournament.tasks.families.score_file.spec import ScoresSpec

_ID = "example_id"


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
            SpecError: if the file is missing, no parquet, or its columns are not example_id, E, S, C and I.
            CandidateError: if an id is there twice, a row is no distribution, or all rows are the same.
        """
        data.progress(0.0, "reading the score file")
        ids, values = _read(Path(self.spec.file))
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
        if _ID not in pairs or not len(self._ids):  # a pair that is served has no id
            return np.zeros(len(pairs), dtype=np.int64), np.zeros(len(pairs), dtype=bool)
        wanted = pairs[_ID].to_numpy()
        place = np.minimum(np.searchsorted(self._ids, wanted), len(self._ids) - 1)
        return place, self._ids[place] == wanted


def check_score_file(spec: ScoresSpec) -> None:
    """Check columns and types from the file's footer alone.

    Args:
        spec: names the file.

    Raises:
        SpecError: if it is missing, no parquet, or its columns are others.
    """
    _check_columns(Path(spec.file), _opened(Path(spec.file)).schema_arrow)


def _opened(path: Path) -> parquet.ParquetFile:
    try:
        return parquet.ParquetFile(path)
    except FileNotFoundError as error:
        raise SpecError(f"score file {path} is not there; correct `file`") from error
    except (OSError, pa.ArrowException) as error:
        raise SpecError(f"score file {path} cannot be read as parquet: {error}") from error


def _check_columns(path: Path, schema: pa.Schema) -> None:
    wanted = (_ID, *LABELS)
    names = [name for name in schema.names if not name.startswith("__index_level_")]  # what pandas adds
    if sorted(names) != sorted(wanted):
        raise SpecError(
            f"score file {path} has the columns {', '.join(names)}; it must have {', '.join(wanted)}: "
            "one example_id and the probabilities of four classes"
        )
    wrong = [_ID] if not pa.types.is_integer(schema.field(_ID).type) else []
    wrong += [label for label in LABELS if not pa.types.is_floating(schema.field(label).type)]
    if wrong:
        raise SpecError(
            f"score file {path}: column {wrong[0]} is {schema.field(wrong[0]).type}; "
            "example_id is a whole number, E, S, C and I are floats"
        )


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    source = _opened(path)
    _check_columns(path, source.schema_arrow)
    try:
        table = source.read()
    except (OSError, pa.ArrowException) as error:
        raise SpecError(f"score file {path} is damaged: {error}") from error
    if table[_ID].null_count:
        raise SpecError(f"score file {path}: example_id is missing in {table[_ID].null_count} rows")
    columns = [table[label].to_numpy().astype(np.float32) for label in LABELS]
    return table[_ID].to_numpy().astype(np.int64), np.stack(columns, axis=1)
