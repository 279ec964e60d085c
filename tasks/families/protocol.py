"""The interface between the product and a family of candidates: the required methods, the optional ones, and the data.

Code outside a family's own folder uses nothing else of it. The same holds for families from other distributions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import pandas as pd

from esci_tournament.registry.errors import CandidateError, SpecError
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.specs import CandidateSpec

Progress = Callable[[float, str], None]  # share done in [0, 1], what is being done

WHOLE, REBUILT, FROM_TEXT = "whole", "rebuilt", "computed from text"  # what `mend` found or did


def silent(share: float, doing: str) -> None:
    """Ignore a progress report; the default where a :data:`Progress` is expected.

    Args:
        share: share done, 0 to 1.
        doing: what is being done.
    """


def too_many(name: str, parameters: int, settings: Settings) -> str:
    """Return the message about a recipe that asks for too large a model.

    Args:
        name: of the candidate.
        parameters: that its model would have.
        settings: `candidate_parameters` is the limit.

    Returns:
        A sentence.
    """
    return (
        f"candidate {name}: its recipe makes about {parameters:,} parameters; the setting candidate_parameters allows "
        f"{settings.candidate_parameters:,}. Choose a smaller hidden_size, vocabulary or number of layers"
    )


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
        progress: called with the share done, 0 to 1, and what is being done.
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

    Abstract methods must be implemented; all others are optional and do here what suits a family without them. A
    class need not derive from this one: :func:`with_defaults` gives it what it lacks.

    Attributes:
        forkable: Whether a fitted model may be loaded once and forked: it has no threads and no processes of its own.
        answers_new_pairs: Whether it can answer for a pair that nobody scored in advance.
        reads_settings: Names of the settings that its models read; they are passed on to worker processes.
        imports: Modules that loading a model imports; a process that forks others imports them first.
        spec: What the candidate was made from.
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
        """Learn, and keep the best epoch on `data.validation`: networks by macro F1, trees by log loss.

        Args:
            data: what to learn from, with device, seed and a work folder.

        Returns:
            The candidate itself.
        """

    @abstractmethod
    def predict_proba(self, pairs: pd.DataFrame, products: pd.DataFrame) -> np.ndarray:
        """Return class probabilities; products and queries that `fit` did not see are allowed.

        Args:
            pairs: columns query, locale and product (row in `products`).
            products: columns of `Dataset.products`.

        Returns:
            float32 (len(pairs), 4), columns in the order E, S, C, I; row i belongs to row i of `pairs`.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write everything that `load` needs into an empty folder: spec.json, safetensors, npy; never a pickle."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, device: str = "cpu") -> Self:
        """Return the model that `save` wrote.

        Args:
            folder: where `save` wrote it.
            device: torch device, such as "cpu" or "cuda:0".

        Returns:
            A fitted model.
        """

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
    def keys_of_version(cls, address: str, settings: Settings) -> dict[str, Any] | None:
        """Return the keys of a spec that enters a version of MLflow's registry, beside name and family.

        Args:
            address: `models:/NAME/VERSION`.
            settings: MLflow's address is used.

        Returns:
            The keys that follow from the address; None when the family takes no such version.

        Raises:
            StoreError: If MLflow does not answer.
        """
        return None

    @classmethod
    def describe(cls, spec: CandidateSpec) -> str:
        """Return in a few words what a model is, for the report."""
        return spec.description

    @classmethod
    def relations_of(cls, spec: CandidateSpec) -> tuple[str, ...]:
        """Return the relations whose edges `fit` and `refresh` are given, in this order; empty for no edges."""
        return ()

    # Of a fitted model

    def cover(self, pairs: pd.DataFrame) -> int:
        """Count the pairs that the model has an answer of its own for.

        Args:
            pairs: columns as in :meth:`predict_proba`, and example_id where the pairs have one.

        Returns:
            A number of pairs; here all of them.

        Raises:
            CandidateError: If it is 0: the model knows nothing about this data.
        """
        return len(pairs)

    def resident_bytes(self) -> int:
        """Return the bytes of memory that it holds in other processes; 0 for a model that runs in this process."""
        return 0

    def learning_curves(self) -> dict[str, list[float | None]]:
        """Return what was measured after each epoch of `fit`, for people to look at.

        Returns:
            Name, such as "train_loss" or "validation_macro_f1", -> a value for each epoch, None where there is none;
            here {}.
        """
        return {}

    # What is computed ahead of requests

    @property
    def products_ahead(self) -> int:
        """The number of products for which it holds something that was computed ahead."""
        return 0

    def keep_products(self, products: pd.DataFrame) -> None:  # noqa: B027
        """Keep precomputed values for these products only; all others are computed on request.

        Args:
            products: columns of `Dataset.products`.
        """

    @property
    def embeds_products(self) -> bool:
        """Whether `embed_products` and `use_products` are worth a call for this model."""
        return False

    def embed_products(self, products: pd.DataFrame, folder: Path, progress: Progress = silent) -> None:
        """Compute the values of every product ahead, write them into `folder`, and use them from now on.

        Args:
            products: columns of `Dataset.products`.
            folder: where to write; :meth:`use_products` reads it.
            progress: called with the share done, 0 to 1, and what is being done.

        Raises:
            SpecError: If the model computes nothing of a product alone, which is the default.
        """
        raise SpecError(f"{self.spec.name} computes nothing of a product alone")

    def use_products(self, folder: Path) -> None:
        """Use what `embed_products` of this very model wrote into `folder`.

        Args:
            folder: where :meth:`embed_products` wrote.

        Raises:
            SpecError: If the folder holds none, or that of another model.
        """
        raise SpecError(f"{self.spec.name} computes nothing of a product alone")

    # Refresh and repair of a fitted model

    def refresh(self, edges: pd.DataFrame, products: pd.DataFrame) -> int:
        """Bring a fitted model up to date with edges and products as they are now, without learning.

        It is called for a family that has this method, on a model that serves.

        Args:
            edges: All edges of its relations, columns as in :class:`FitData`; empty when it wants none.
            products: The catalogue; the edges name its rows.

        Returns:
            The number of products that were computed anew.

        Raises:
            CandidateError: If the model cannot be refreshed; it then stays as it is.
        """
        raise CandidateError(f"{self.spec.name} has nothing that could be refreshed")

    @classmethod
    def mend(cls, folder: Path, device: str = "cpu") -> str | None:
        """Check the precomputed files of a saved model, and repair them in place, before the model is loaded.

        Args:
            folder: where `save` wrote the model.
            device: torch device to compute on.

        Returns:
            :data:`WHOLE`, :data:`REBUILT` or :data:`FROM_TEXT`; None when nothing was computed ahead.
        """
        return None


Kind = TypeVar("Kind", bound=type)


def with_defaults(kind: Kind) -> Kind:
    """Give a class that does not derive from :class:`Candidate` the optional attributes that it lacks; a decorator.

    Args:
        kind: a class with at least the abstract methods of :class:`Candidate`; it is changed in place.

    Returns:
        The same class.
    """
    if not issubclass(kind, Candidate):
        for name, default in vars(Candidate).items():
            if not name.startswith("_") and not hasattr(kind, name) and not getattr(default, "__isabstractmethod__", 0):
                setattr(kind, name, default)
    return kind


def refreshes(kind: type) -> bool:
    """Tell whether a family has a `refresh` of its own."""
    return getattr(kind, "refresh", Candidate.refresh) is not Candidate.refresh
