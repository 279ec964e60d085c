"""What every family of candidates can do, and what it is given to do it with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import pandas as pd

from esci_tournament.registry.specs import CandidateSpec

Progress = Callable[[float, str], None]  # share done in [0, 1], what is being done


def silent(share: float, doing: str) -> None:
    """Report progress to nobody."""


@dataclass(frozen=True)
class FitData:
    """What a candidate may learn from.

    Attributes:
        pairs: the pairs to fit on, columns of `Dataset.pairs`; no query of it stands in `validation`.
        validation: query-disjoint pairs that choose the best epoch.
        products: the whole catalogue (`pairs["product"]` are rows of it). Reading its text is not a leak.
        edges: behaviour and impression edges whose query is neither held out nor in validation:
            `query` str, `locale`, `query_key` uint64, `product` int32, `relation` str, `weight` float32;
            of a relation between products `source` int32 in place of query, locale and key; of several relations the
            columns of both (`esci_tournament.tasks.data.behaviour.edges_of_several`); None when the candidate asks for
            no relation.
        seed: seed of every random choice.
        device: torch device, such as "cpu" or "cuda:0".
        work: a folder for checkpoints; a run that is killed continues from what is there, with the same result.
        progress: called with the share done and a word on it.
    """

    pairs: pd.DataFrame
    validation: pd.DataFrame
    products: pd.DataFrame
    edges: pd.DataFrame | None
    seed: int
    device: str
    work: Path
    progress: Progress = field(default=silent)


class Candidate(Protocol):
    """A model that may enter a tournament. Implementations hold no connection and open no file but in save and load."""

    def __init__(self, spec: CandidateSpec) -> None:
        """Make a model that is not fitted yet; a family takes specs of its own kind only."""

    @property
    def spec(self) -> CandidateSpec:
        """What it was made from."""

    def fit(self, data: FitData) -> Self:
        """Learn, keep the best epoch by macro F1 on `data.validation`, and return self."""

    def predict_proba(self, pairs: pd.DataFrame, products: pd.DataFrame) -> np.ndarray:
        """Return class probabilities, float32 (len(pairs), 4), order E, S, C, I.

        `pairs` needs the columns query, locale, product (row in `products`); `products` those of `Dataset.products`.
        Products and queries never seen before are welcome.
        """

    def save(self, folder: Path) -> None:
        """Write everything that `load` needs into an empty folder: safetensors, JSON, npy; never a pickle."""

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Self:
        """Return the model that `save` wrote."""

    def parameters(self) -> int:
        """Return the number of parameters that serving needs."""
