"""Models for some locales only: the pairs they are fitted on, and their answers for other locales."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from esci_tournament.registry.errors import CandidateError
from esci_tournament.registry.labels import LABELS
from esci_tournament.tasks.families.language_model.spec import LanguageModelSpec
from esci_tournament.tasks.families.protocol import FitData

_ALL = "all"


def class_shares(pairs: pd.DataFrame) -> dict[str, list[float]]:
    """Return the share of each class among the pairs of each locale, and of all pairs under "all".

    Args:
        pairs: columns locale and label (int, index into `LABELS`); at least one pair.

    Returns:
        Four shares that sum to 1, for each locale that has a pair and for "all".

    Example:
        >>> pairs = pd.DataFrame({"locale": ["us", "us", "jp"], "label": [0, 2, 0]})
        >>> class_shares(pairs)["us"]
        [0.5, 0.0, 0.5, 0.0]
    """
    groups = [(_ALL, pairs), *((str(name), part) for name, part in pairs.groupby("locale", observed=True))]
    counts = {name: np.bincount(part["label"].to_numpy(), minlength=len(LABELS)) for name, part in groups}
    return {name: (count / count.sum()).tolist() for name, count in counts.items()}


def shares_of(locales: pd.Series, shares: dict[str, list[float]]) -> np.ndarray:
    """Return the class shares of each pair's locale.

    Args:
        locales: locale of each pair.
        shares: what :func:`class_shares` returned; a locale that is not in it gets the shares under "all".

    Returns:
        float32 (len(locales), 4), order E, S, C, I.
    """
    rows = [shares.get(str(locale), shares[_ALL]) for locale in locales]
    return np.asarray(rows, dtype=np.float32).reshape(len(rows), len(LABELS))


def of_locales(data: FitData, spec: LanguageModelSpec) -> FitData:
    """Return the training data of the locales in the recipe.

    Args:
        data: pairs and validation with a column locale.
        spec: its recipe names the locales.

    Returns:
        The data with the pairs and the validation pairs of these locales, each with a new index from 0.

    Raises:
        CandidateError: if they have no pair to fit on.
    """
    wanted = spec.recipe.locales
    pairs, validation = (frame[frame["locale"].isin(wanted)] for frame in (data.pairs, data.validation))
    if pairs.empty:
        there = ", ".join(sorted(map(str, data.pairs["locale"].unique())))
        raise CandidateError(
            f"candidate {spec.name}: no pair to fit on is of its locales ({', '.join(wanted)}); "
            f"there are pairs of {there}"
        )
    return replace(data, pairs=pairs.reset_index(drop=True), validation=validation.reset_index(drop=True))
