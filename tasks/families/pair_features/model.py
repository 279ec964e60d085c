"""The family of pair features: gradient-boosted trees, without a network and without a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd

from esci_tournament.registry.errors import CandidateError, SpecError
from esci_tournament.registry.foreign import read_bounded
from esci_tournament.registry.labels import LABELS
from esci_tournament.registry.processes import usable_cores
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.specs import CandidateSpec
from esci_tournament.tasks.ensemble.aggregate import softmax
from esci_tournament.tasks.ensemble.model_text import LONGEST, read_model
from esci_tournament.tasks.ensemble.trees import FlatTrees
from esci_tournament.tasks.families.losses import class_weights
from esci_tournament.tasks.families.pair_features.features import names, pair_features
from esci_tournament.tasks.families.pair_features.popularity import Popularity, of_own_query
from esci_tournament.tasks.families.pair_features.spec import PairFeaturesSpec
from esci_tournament.tasks.families.pair_features.vocabulary import Vocabulary
from esci_tournament.tasks.families.protocol import Candidate, FitData, too_many
from esci_tournament.tasks.families.usable_edges import usable_edges

_TREES = "trees.txt"


class _Fitted(NamedTuple):
    trees: FlatTrees
    vocabulary: Vocabulary
    popularity: Popularity


class PairFeatures(Candidate):
    """Trees on what the texts of a pair share, what the query names, lengths, locale and the product's popularity.

    Each answer follows from its own pair alone. It costs next to nothing beside a network, and its errors are of
    another kind: that is what it is for in an ensemble.

    Attributes:
        spec: relations and recipe.
        text: LightGBM's text of the trees.
        vocabulary: of the fit's catalogue.
        popularity: counts of products, as of the fit or of the last refresh.
        curves: `log_loss` and `macro_f1` on validation after each round.
    """

    forkable = True
    imports = ("esci_tournament.tasks.ensemble.trees",)

    spec: PairFeaturesSpec

    def __init__(self, spec: PairFeaturesSpec) -> None:
        self.spec = spec
        self.text = ""
        self.vocabulary: Vocabulary | None = None
        self.popularity: Popularity | None = None
        self.curves: dict[str, list[float]] = {}
        self._trees: FlatTrees | None = None

    @classmethod
    def permit(cls, spec: CandidateSpec, settings: Settings) -> None:
        """Refuse trees with too many leaves.

        Raises:
            SpecError: if so; the message names the setting.
        """
        assert isinstance(spec, PairFeaturesSpec)
        leaves = spec.recipe.rounds * spec.recipe.leaves * len(LABELS)
        if leaves > settings.candidate_parameters:
            raise SpecError(too_many(spec.name, leaves, settings))

    @classmethod
    def describe(cls, spec: CandidateSpec) -> str:
        """Return that it is trees, and whose events count as popularity."""
        assert isinstance(spec, PairFeaturesSpec)
        counted = f", popularity by {', '.join(spec.popularity)}" if spec.popularity else ""
        return f"trees on {len(names(spec.popularity))} features of the pair{counted}"

    @classmethod
    def relations_of(cls, spec: CandidateSpec) -> tuple[str, ...]:
        """Return the relations whose events are counted."""
        assert isinstance(spec, PairFeaturesSpec)
        return spec.popularity

    def fit(self, data: FitData) -> Self:
        """Read the catalogue's words, count the edges, and boost trees; it takes seconds and starts anew if ended.

        The rounds that are kept have the least log loss on validation: the aggregator reads probabilities.

        Args:
            data: `edges` must hold all relations of the spec.

        Returns:
            The candidate itself.

        Raises:
            CandidateError: if a relation has no edges.
            LeakError: if an edge belongs to a query of the validation pairs.
        """
        from esci_tournament.tasks.families.pair_features.training import boost  # LightGBM, which answering needs not

        recipe, seed = self.spec.recipe, data.seed if self.spec.seed is None else self.spec.seed
        relations = self.spec.popularity
        edges = usable_edges(self.spec.name, relations, data) if relations else None
        data.progress(0.0, "reading text")
        vocabulary = Vocabulary.fit(data.pairs["query"].unique(), data.products)
        popularity = Popularity.of(edges, relations, data.products)
        own = of_own_query(edges, relations, data.pairs)
        fit = pair_features(data.pairs, data.products, vocabulary, popularity, own)
        held_out = pair_features(data.validation, data.products, vocabulary, popularity)
        labels = data.pairs["label"].to_numpy()
        by_class = class_weights(labels, recipe.class_weights)
        self.text, self.curves = boost(
            (fit, labels, None if by_class is None else by_class[labels]),
            (held_out, data.validation["label"].to_numpy()),
            names(relations), recipe, seed, usable_cores(), data.progress,
        )  # fmt: skip
        self.vocabulary, self.popularity = vocabulary, popularity
        self._trees = _read(self.text, relations)
        return self

    def refresh(self, edges: pd.DataFrame, products: pd.DataFrame) -> int:
        """Count the edges anew; what the model has learnt stays as it is.

        Args:
            edges: all edges of its relations as they are now, columns as in :class:`FitData`.
            products: the catalogue as it is now; `edges` name its rows.

        Returns:
            The number of products whose counts changed.

        Raises:
            CandidateError: if the model is not fitted.
        """
        before = self._fitted().popularity
        if not self.spec.popularity:
            return 0
        self.popularity = Popularity.of(edges, self.spec.popularity, products)
        return before.changed(self.popularity)

    def predict_proba(self, pairs: pd.DataFrame, products: pd.DataFrame) -> np.ndarray:
        """Return class probabilities.

        Args:
            pairs: columns query, locale and product (row in `products`).
            products: columns of `Dataset.products`.

        Returns:
            float32 (len(pairs), 4), order E, S, C, I.

        Raises:
            CandidateError: if the model is not fitted.
        """
        trees, vocabulary, popularity = self._fitted()
        scores = trees.raw_scores(pair_features(pairs, products, vocabulary, popularity))
        return softmax(scores).astype(np.float32)

    def learning_curves(self) -> dict[str, list[float | None]]:
        """Return log loss and macro F1 on validation after each round."""
        return {f"validation_{name}": list(values) for name, values in self.curves.items()}

    def keep_products(self, products: pd.DataFrame) -> None:
        """Keep the counts of these products only; all others count as products without events.

        Args:
            products: columns of `Dataset.products`.

        Raises:
            CandidateError: if the model is not fitted.
        """
        self.popularity = self._fitted().popularity.only(products)

    def save(self, folder: Path) -> None:
        """Write trees (LightGBM's text), vocabulary and counts (npy), curves and spec (JSON, last) into `folder`.

        Raises:
            CandidateError: if the model is not fitted.
        """
        _, vocabulary, popularity = self._fitted("there is nothing to save")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _TREES).write_text(self.text, encoding="utf-8")
        vocabulary.save(folder)
        popularity.save(folder)
        (folder / "curves.json").write_text(json.dumps(self.curves), encoding="utf-8")
        (folder / "spec.json").write_text(self.spec.model_dump_json(indent=2), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Self:
        """Return the model that `save` wrote; `device` is not used, trees run on the CPU.

        Args:
            folder: where `save` wrote.
            device: torch device.

        Returns:
            A fitted model.

        Raises:
            CandidateError: if a file is missing or is not what `save` writes.
        """
        try:
            content: dict[str, Any] = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
            model = cls(PairFeaturesSpec.model_validate(content))
            model.curves = json.loads((folder / "curves.json").read_text(encoding="utf-8"))
            model.vocabulary, model.popularity = Vocabulary.load(folder), Popularity.load(folder)
            model.text = read_bounded(folder / _TREES, LONGEST)
            model._trees = _read(model.text, model.spec.popularity)
        except (OSError, KeyError, ValueError) as error:
            raise CandidateError(f"{folder} holds no model of pair features that can be loaded: {error}") from error
        return model

    def parameters(self) -> int:
        """Return the thresholds and leaf values of the trees.

        Raises:
            CandidateError: if the model is not fitted.
        """
        trees = self._fitted("it has no parameters yet").trees
        return len(trees.threshold) + len(trees.value)

    def _fitted(self, otherwise: str = "call fit or load first") -> _Fitted:
        if self._trees is None or self.vocabulary is None or self.popularity is None:
            raise CandidateError(f"{self.spec.name} is not fitted; {otherwise}")
        return _Fitted(self._trees, self.vocabulary, self.popularity)


def _read(text: str, relations: tuple[str, ...]) -> FlatTrees:
    return FlatTrees.joined(read_model(text, len(names(relations))))
