"""What every family of candidates can do, what it may be able to do, and what it is given to do it with.

Nothing else of a family is known outside of its own folder, be it one of this product or of another distribution.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self, TypeVar

import numpy as np
import pandas as pd

from esci_tournament.registry.errors import CandidateError, SpecError
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.specs import CandidateSpec

Progress = Callable[[float, str], None]  # share done in [0, 1], what is being done

WHOLE, REBUILT, FROM_TEXT = "whole", "rebuilt", "computed from text"  # what `mend` found or did


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


class Candidate(ABC):
    """A model that may enter a tournament. Implementations hold no connection and open no file but in save and load.

    What is abstract a family must have; all else is optional and does here what is done for a family without it. A
    class need not derive from this one: :func:`with_defaults` gives it what it lacks.

    Attributes:
        forkable: Whether a fitted model may be loaded once and forked: it has no threads and no processes of its own.
        answers_new_pairs: Whether it can answer for a pair that nobody scored in advance.
        reads_settings: Names of the settings that its models read; workers are told them.
        imports: Modules that loading a model imports; a process that forks others imports them first.
    """

    forkable: ClassVar[bool] = False
    answers_new_pairs: ClassVar[bool] = True
    reads_settings: ClassVar[tuple[str, ...]] = ()
    imports: ClassVar[tuple[str, ...]] = ()

    spec: CandidateSpec

    # What a family must have

    @abstractmethod
    def __init__(self, spec: CandidateSpec) -> None:
        """Make a model that is not fitted yet; a family takes specs of its own kind only."""

    @abstractmethod
    def fit(self, data: FitData) -> Self:
        """Learn, keep the best epoch by macro F1 on `data.validation`, and return self."""

    @abstractmethod
    def predict_proba(self, pairs: pd.DataFrame, products: pd.DataFrame) -> np.ndarray:
        """Return class probabilities, float32 (len(pairs), 4), order E, S, C, I.

        `pairs` needs the columns query, locale, product (row in `products`); `products` those of `Dataset.products`.
        Products and queries never seen before are welcome.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write everything that `load` needs into an empty folder: spec.json, safetensors, npy; never a pickle."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, device: str = "cpu") -> Self:
        """Return the model that `save` wrote."""

    @abstractmethod
    def parameters(self) -> int:
        """Return the number of parameters that serving needs."""

    # Of a spec, before there is a model

    @classmethod  # noqa: B027 (there is nothing to check unless a family says so)
    def check(cls, spec: CandidateSpec) -> None:
        """Check what a spec points to, before it is registered and again before it is trained.

        Raises:
            SpecError: If it cannot be used; the message says what is missing.
        """

    @classmethod  # noqa: B027
    def permit(cls, spec: CandidateSpec, settings: Settings) -> None:
        """Check that the operator of this installation allows the candidate.

        Raises:
            SpecError: If not; the message names the setting that would.
        """

    @classmethod
    def describe(cls, spec: CandidateSpec) -> str:
        """Return in a few words what a model is, for the report."""
        return spec.description

    @classmethod
    def relations_of(cls, spec: CandidateSpec) -> tuple[str, ...]:
        """Return the relations whose edges `fit` and `refresh` are given, in this order; none for no edges."""
        return ()

    # Of a fitted model

    def cover(self, pairs: pd.DataFrame) -> int:
        """Return how many of `pairs` it has an answer of its own for.

        Raises:
            CandidateError: If there is none: it says nothing of this data.
        """
        return len(pairs)

    def resident_bytes(self) -> int:
        """Return the memory that it holds in other processes; 0 for a model in this process, whose weights count."""
        return 0

    # What is computed ahead of requests

    @property
    def products_ahead(self) -> int:
        """The number of products for which it holds something that was computed ahead."""
        return 0

    def keep_products(self, products: pd.DataFrame) -> None:  # noqa: B027
        """Hold what was computed ahead for these products alone; others are then computed when they are asked for."""

    @property
    def embeds_products(self) -> bool:
        """Whether `embed_products` and `use_products` are worth a call for this model."""
        return False

    def embed_products(self, products: pd.DataFrame, folder: Path, progress: Progress = silent) -> None:
        """Compute something for every product ahead, write it into `folder`, and use it from now on."""
        raise SpecError(f"{self.spec.name} computes nothing of a product alone")

    def use_products(self, folder: Path) -> None:
        """Use what `embed_products` of this very model wrote into `folder`.

        Raises:
            SpecError: If the folder holds none, or that of another model.
        """
        raise SpecError(f"{self.spec.name} computes nothing of a product alone")

    # As time goes by

    def refresh(self, edges: pd.DataFrame, products: pd.DataFrame) -> int:
        """Take up edges and products as they are now, without learning; return how many products were computed anew.

        It is called for a family that has this method, on a model that serves.

        Args:
            edges: All edges of its relations, columns as in :class:`FitData`; empty when it wants none.
            products: The catalogue; the edges name its rows.

        Raises:
            CandidateError: If the model cannot be refreshed; it then goes on as it is.
        """
        raise CandidateError(f"{self.spec.name} has nothing that could be refreshed")

    @classmethod
    def mend(cls, folder: Path, device: str = "cpu") -> str | None:
        """Check what a saved model has computed ahead, and mend it in place, before the model is loaded.

        Returns:
            :data:`WHOLE`, :data:`REBUILT` or :data:`FROM_TEXT`; None when nothing was computed ahead.
        """
        return None


Kind = TypeVar("Kind", bound=type)


def with_defaults(kind: Kind) -> Kind:
    """Give a class that does not derive from :class:`Candidate` the optional attributes that it lacks; a decorator."""
    if not issubclass(kind, Candidate):
        for name, default in vars(Candidate).items():
            if not name.startswith("_") and not hasattr(kind, name) and not getattr(default, "__isabstractmethod__", 0):
                setattr(kind, name, default)
    return kind


def refreshes(kind: type) -> bool:
    """Tell whether a family has a `refresh` of its own."""
    return getattr(kind, "refresh", Candidate.refresh) is not Candidate.refresh
