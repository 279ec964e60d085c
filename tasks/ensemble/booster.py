"""LightGBM's model from its text; a text from a file is first tried in a child process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np

from esci_tournament.registry.border import in_child
from esci_tournament.registry.errors import StoreError
from esci_tournament.registry.labels import CLASSES

_ROWS = 16  # of random numbers that a text is tried with
_SECONDS, _MEMORY_MIB = 120.0, 4096


def open_booster(text: str) -> lightgbm.Booster:
    """Return LightGBM's model of a text that this product wrote or :func:`try_text` has passed.

    Args:
        text: What `Booster.model_to_string` returned.

    Returns:
        The model.

    Raises:
        StoreError: If LightGBM refuses it.
    """
    try:
        return lightgbm.Booster(model_str=text)
    except (ValueError, lightgbm.basic.LightGBMError) as error:
        raise StoreError(f"the aggregator's trees cannot be read by LightGBM: {error}; fit it again") from error


def try_files(files: list[Path]) -> None:
    """Let LightGBM read files in a child process, and score some rows with each.

    Args:
        files: Texts of models.

    Raises:
        StoreError: If one of them ends that process, takes too long or gives no finite scores.
    """
    in_child(
        f"{__name__}:scores_of",
        {"files": [str(file.absolute()) for file in files]},
        doing=f"let LightGBM read {files[0]}" + (f" and {len(files) - 1} more" if len(files) > 1 else ""),
        seconds=_SECONDS,
        memory_mib=_MEMORY_MIB,
        refusal=StoreError,
        reads=files,
    )


def scores_of(files: list[str]) -> bool:
    """Score random rows with each of some models; this runs in the child.

    Args:
        files: Texts of models.

    Returns:
        True.

    Raises:
        StoreError: If LightGBM refuses one, or a score is not finite.
    """
    for file in files:
        booster = open_booster(Path(file).read_text(encoding="utf-8"))
        rows = np.random.default_rng(0).random((_ROWS, booster.num_feature()))
        scores: Any = booster.predict(rows, raw_score=True, num_threads=1)
        booster.model_to_string()
        json.dumps(booster.params, default=str)
        if np.asarray(scores).size != _ROWS * CLASSES or not np.isfinite(scores).all():
            raise StoreError(f"{file}: its scores are not {CLASSES} finite numbers a row; fit it again")
    return True
