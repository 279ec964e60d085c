"""The score store: class probabilities of a candidate for one data version, so that it is trained only once."""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import json
import logging
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from esci_tournament.registry.errors import CandidateError, NotFoundError, StoreError
from esci_tournament.registry.files import (
    disk_in_words,
    folder_name,
    publish,
    set_aside,
    temporary_folder,
    write_atomically,
)
from esci_tournament.registry.labels import CLASSES

ARRAYS, PROVENANCE = "scores.npz", "provenance.json"
CALIBRATED = "calibrated.npz"
SUM_TOLERANCE = 1e-3  # of a row's float32 probabilities
SAME_TOLERANCE = 1e-3  # two runs of one recipe on other hardware differ by less than this
_LONGEST_FILE_NAME = 200  # file systems take 255 bytes

_log = logging.getLogger("scores")


@dataclass(frozen=True)
class Scores:
    """Class probabilities of one candidate.

    Attributes:
        example_id: int64 (n,), each once.
        probabilities: float32 (n, 4), order E, S, C, I; each row sums to 1.
        out_of_sample: bool (n,): True where the model did not learn from the pair.
        provenance: What `put` was told, with `candidate`, `data_version`, `recipe`, `digest`, `rows`, `written_at`.
    """

    example_id: np.ndarray
    probabilities: np.ndarray
    out_of_sample: np.ndarray
    provenance: dict[str, Any]


class ScoreStore:
    """Scores under (candidate id, data version, recipe digest); a folder each, whole or absent.

    Args:
        root: The folder of the store; made when the first scores are stored.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def folder(self, candidate: str, data_version: str, recipe: str) -> Path:
        """Return the folder that holds these scores, whether it exists or not.

        Args:
            candidate: Candidate id, such as "minilm/3".
            data_version: Digest of the data.
            recipe: Digest of all else that the scores follow from.

        Returns:
            A folder three levels below `root`; characters that are no part of file names are percent-encoded.
        """
        return self.root.joinpath(*(_file_name(part) for part in (candidate, data_version, recipe)))

    def has(self, candidate: str, data_version: str, recipe: str) -> bool:
        """Return whether scores stand under these three keys; their content is not checked, see :meth:`damaged`.

        Args:
            candidate: Candidate id, such as "minilm/3".
            data_version: Digest of the data.
            recipe: Digest of all else that the scores follow from.

        Returns:
            Whether their provenance file is there.
        """
        return (self.folder(candidate, data_version, recipe) / PROVENANCE).is_file()

    def damaged(self, candidate: str, data_version: str, recipe: str) -> str:
        """Return what is wrong with stored scores, which are read for it.

        Args:
            candidate: Candidate id, such as "minilm/3".
            data_version: Digest of the data.
            recipe: Digest of all else that the scores follow from.

        Returns:
            The complaint; "" when they are as they were stored, or none are.
        """
        try:
            self.get(candidate, data_version, recipe)
        except NotFoundError:
            pass
        except StoreError as error:
            return str(error)
        return ""

    def put(
        self,
        candidate: str,
        data_version: str,
        recipe: str,
        *,
        example_id: np.ndarray,
        probabilities: np.ndarray,
        out_of_sample: np.ndarray,
        provenance: Mapping[str, Any] | None = None,
    ) -> Scores:
        """Store scores and return what stands now under the three keys.

        Scores that stand already stay (the run before was killed late); damaged ones are set aside and replaced.

        Args:
            candidate: Candidate id, such as "minilm/3".
            data_version: Digest of the data.
            recipe: Digest of all else that the scores follow from (split, seed, how they are out of sample).
            example_id: int64 (n,), unique.
            probabilities: float32 (n, 4), order E, S, C, I; finite, within 0..1, rows sum to 1 within `SUM_TOLERANCE`.
            out_of_sample: bool (n,), True where the model did not learn from the pair.
            provenance: Where the scores come from, as JSON can hold it.

        Returns:
            The new scores, or those that stood already and differ by `SAME_TOLERANCE` at most.

        Raises:
            CandidateError: If the arrays are no class probabilities; the message says where.
            StoreError: If the disk is full, or really different scores stand there already.
        """
        arrays = _checked(candidate, example_id, probabilities, out_of_sample)
        target = self.folder(candidate, data_version, recipe)
        standing = self._standing(candidate, data_version, recipe)
        if standing is not None:
            return _agreed(standing, arrays, target)
        words = dict(provenance or {}) | {
            "candidate": candidate,
            "data_version": data_version,
            "recipe": recipe,
            "rows": len(arrays["example_id"]),
            "digest": _digest(arrays),
            "written_at": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
        }
        with disk_in_words(f"scores of {candidate}", self.root):
            self._write(target, arrays, words)
        return self.get(candidate, data_version, recipe)

    def get(self, candidate: str, data_version: str, recipe: str) -> Scores:
        """Return stored scores, their content checked against its digest.

        Args:
            candidate: Candidate id.
            data_version: Digest of the data.
            recipe: Digest of all else that the scores follow from.

        Returns:
            The scores, in the order in which they were put.

        Raises:
            NotFoundError: If nothing stands under these three.
            StoreError: If a file is damaged; the message names it.
        """
        folder = self.folder(candidate, data_version, recipe)
        if not folder.is_dir():
            raise NotFoundError(
                f"no scores of {candidate} for data version {data_version[:12]} and recipe {recipe[:12]}; "
                "score the candidate first"
            )
        words = _read_provenance(folder / PROVENANCE)
        path = folder / ARRAYS
        try:
            with np.load(path, allow_pickle=False) as content:
                arrays = {name: content[name] for name in ("example_id", "probabilities", "out_of_sample")}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
            raise StoreError(_damaged(path, error)) from error
        if _digest(arrays) != words.get("digest"):
            raise StoreError(_damaged(path, "its content is not what its digest says"))
        return Scores(**arrays, provenance=words)

    def put_calibrated(
        self, candidate: str, data_version: str, recipe: str, temperature: float, probabilities: np.ndarray
    ) -> None:
        """Keep calibrated probabilities beside the raw ones.

        Args:
            candidate: Candidate id.
            data_version: Digest of the data.
            recipe: Digest of all else that the raw scores follow from.
            temperature: What the logarithms of the raw probabilities were divided by.
            probabilities: float32 (n, 4), order E, S, C, I; rows as those of the raw ones.

        Raises:
            NotFoundError: If there are no raw scores.
            CandidateError: If they are no class probabilities.
            StoreError: If the raw scores are damaged or the disk is full.
        """
        raw = self.get(candidate, data_version, recipe)
        values = _checked(candidate, raw.example_id, probabilities, raw.out_of_sample)["probabilities"]
        content = io.BytesIO()
        np.savez(content, probabilities=values, temperature=np.float64(temperature))
        with disk_in_words(f"calibrated scores of {candidate}", self.root):
            write_atomically(self.folder(candidate, data_version, recipe) / CALIBRATED, content.getvalue())

    def calibrated(self, candidate: str, data_version: str, recipe: str) -> tuple[float, np.ndarray]:
        """Return temperature and calibrated probabilities.

        Args:
            candidate: Candidate id.
            data_version: Digest of the data.
            recipe: Digest of all else that the raw scores follow from.

        Returns:
            The temperature, and float32 (n, 4) in order E, S, C, I, rows as those of the raw ones.

        Raises:
            NotFoundError: If there are none.
            StoreError: If the file is damaged.
        """
        path = self.folder(candidate, data_version, recipe) / CALIBRATED
        if not path.is_file():
            raise NotFoundError(f"no calibrated scores of {candidate}; its tournament makes them")
        try:
            with np.load(path, allow_pickle=False) as content:
                return float(content["temperature"]), content["probabilities"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise StoreError(_damaged(path, error)) from error

    def list(self) -> list[dict[str, Any]]:
        """Return the provenance of all scores; array files are not opened.

        Returns:
            One dict each, as `Scores.provenance`, sorted by candidate, data version and recipe.

        Raises:
            StoreError: If a provenance file is damaged; the message names it.
        """
        found = [_read_provenance(path) for path in self.root.glob(f"*/*/[!.]*/{PROVENANCE}")]
        return sorted(found, key=lambda words: (words["candidate"], words["data_version"], words["recipe"]))

    def _standing(self, candidate: str, data_version: str, recipe: str) -> Scores | None:
        folder = self.folder(candidate, data_version, recipe)
        try:
            return self.get(candidate, data_version, recipe)
        except NotFoundError:
            return None
        except StoreError as error:
            _log.warning("%s; what is left is kept in %s", error, set_aside(folder))
            return None

    def _write(self, target: Path, arrays: dict[str, np.ndarray], words: dict[str, Any]) -> None:
        with temporary_folder(self.root, "scores") as folder:
            np.savez(folder / ARRAYS, **arrays)  # type: ignore[arg-type]
            content = json.dumps(words, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
            (folder / PROVENANCE).write_text(content, encoding="utf-8")
            try:
                publish(folder, target)
            except OSError:
                if not (target / PROVENANCE).is_file():  # not a lost race
                    raise


def _checked(
    candidate: str, example_id: np.ndarray, probabilities: np.ndarray, out_of_sample: np.ndarray
) -> dict[str, np.ndarray]:
    ids, values, held_out = np.asarray(example_id), np.asarray(probabilities), np.asarray(out_of_sample)
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise CandidateError(f"{candidate}: example_id is {ids.dtype} {ids.shape}; it must be int64 (n,)")
    if values.shape != (len(ids), CLASSES) or not np.issubdtype(values.dtype, np.floating):
        expected = f"float32 ({len(ids)}, {CLASSES})"
        raise CandidateError(f"{candidate}: scores are {values.dtype} {values.shape}; expected {expected}")
    if held_out.shape != ids.shape or held_out.dtype != bool:
        raise CandidateError(f"{candidate}: out_of_sample is {held_out.dtype} {held_out.shape}; expected bool (n,)")
    if len(np.unique(ids)) != len(ids):
        raise CandidateError(f"{candidate}: {len(ids) - len(np.unique(ids))} example ids are scored twice")
    values = values.astype(np.float32)
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        raise CandidateError(_where(candidate, "are not finite", ids, values, ~finite))
    outside = np.any((values < 0) | (values > 1 + SUM_TOLERANCE), axis=1)
    if outside.any():
        raise CandidateError(_where(candidate, "are outside [0, 1]", ids, values, outside))
    wrong = np.abs(values.sum(axis=1, dtype=np.float64) - 1) > SUM_TOLERANCE
    if wrong.any():
        raise CandidateError(_where(candidate, "do not sum to 1", ids, values, wrong))
    return {"example_id": ids.astype(np.int64), "probabilities": values, "out_of_sample": held_out}


def _where(candidate: str, problem: str, ids: np.ndarray, values: np.ndarray, rows: np.ndarray) -> str:
    first = int(np.flatnonzero(rows)[0])
    return (
        f"{candidate}: scores of {int(rows.sum())} of {len(ids)} pairs {problem}; "
        f"the first is example_id {ids[first]}: {values[first].tolist()}"
    )


def _agreed(standing: Scores, arrays: dict[str, np.ndarray], folder: Path) -> Scores:
    same = (
        np.array_equal(standing.example_id, arrays["example_id"])
        and np.array_equal(standing.out_of_sample, arrays["out_of_sample"])
        and np.allclose(standing.probabilities, arrays["probabilities"], rtol=0, atol=SAME_TOLERANCE)
    )
    if not same:
        raise StoreError(
            f"{folder} holds other scores under the same candidate, data version and recipe; "
            "the recipe digest leaves something out: put it in, or delete the folder"
        )
    return standing


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    total = hashlib.sha256()
    for name in ("example_id", "probabilities", "out_of_sample"):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def _read_provenance(path: Path) -> dict[str, Any]:
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(_damaged(path, error)) from error
    if not isinstance(words, dict) or not {"candidate", "data_version", "recipe", "digest"} <= set(words):
        raise StoreError(_damaged(path, "it names no candidate, data version, recipe and digest"))
    return words


def _damaged(path: Path, problem: object) -> str:
    return f"score file {path} is damaged ({problem}); run the same command again: the scores are made again"


def _file_name(part: str) -> str:
    name = quote(part, safe=" ")
    if len(name) > _LONGEST_FILE_NAME:
        return folder_name(part)
    return f"%2E{name[1:]}" if name.startswith(".") else name
