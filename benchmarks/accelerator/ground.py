"""The data and the models that the GPU benchmark measures with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.worlds import lengthened, some_queries
from esci_tournament.tasks.candidates.device import resolve_device
from esci_tournament.tasks.data.behaviour import edges
from esci_tournament.tasks.data.dataset import salted_uniform
from esci_tournament.tasks.data.load import load_esci
from esci_tournament.tasks.data.store import read_frame, write_frame
from esci_tournament.tasks.data.synthesize import synthesize
from esci_tournament.tasks.families.graph_network.model import GraphNetwork
from esci_tournament.tasks.families.graph_network.spec import GraphNetworkRecipe, GraphNetworkSpec
from esci_tournament.tasks.families.language_model.model import LanguageModel
from esci_tournament.tasks.families.language_model.spec import LanguageModelRecipe, LanguageModelSpec
from esci_tournament.tasks.families.protocol import Candidate, FitData, Progress, silent

VALIDATION_SHARE = 0.15
RELATION = "impressions"
_FRAMES = ("fit", "validation", "test", "products", "edges")


@dataclass(frozen=True)
class Size:
    """How large everything is.

    Attributes:
        pairs: to fit on, of whole queries.
        max_length: tokens a pair.
        small: width, layers and heads of the smaller encoder; MiniLM-L6's at full size.
        large: of the larger one; BERT-base's at full size.
        epochs: of the trainings whose loss curves are compared.
        speed_factor: epochs, as a multiple of those, of the trainings whose speed is measured.
        graph_epochs: of a graph network's training.
        bulk: pairs that are scored at once to compare precisions.
        pages: that the replicas answer in each of their measurements.
    """

    pairs: int = 1280
    max_length: int = 128
    small: tuple[int, int, int] = (384, 6, 12)
    large: tuple[int, int, int] = (768, 12, 12)
    epochs: int = 3
    speed_factor: int = 4
    graph_epochs: int = 6
    bulk: int = 4000
    pages: int = 400


FULL = Size()
QUICK = Size(160, 64, (64, 2, 4), (96, 2, 4), 2, 1, 2, 200, 20)


@dataclass(frozen=True)
class Ground:
    """What models learn from and answer for; columns as in :class:`FitData`.

    Attributes:
        size: of everything.
        device: torch device that is measured.
        folder: scratch folder, with these frames and the fitted models.
        checkpoint: Hugging Face folder of the smaller encoder, None for random weights.
        seed: of everything.
    """

    size: Size
    device: str
    folder: Path
    checkpoint: Path | None
    seed: int

    @property
    def on_card(self) -> bool:
        return resolve_device(self.device).type == "cuda"

    def frame(self, name: str) -> pd.DataFrame:
        return read_frame(self.folder / f"{name}.arrow")

    def fit_data(self, device: str, work: Path, seed: int, progress: Progress = silent, pairs: int = 0) -> FitData:
        """Return what a model is fitted with; of the pairs to fit on the first `pairs`, 0 for all."""
        chosen = self.frame("fit")
        return FitData(
            chosen.iloc[: pairs or len(chosen)].reset_index(drop=True), self.frame("validation"),
            self.frame("products"), self.frame("edges"), seed, device, work, progress,
        )  # fmt: skip

    def model(self, name: str, device: str) -> Candidate:
        """Load a model that :func:`fit_models` has fitted."""
        return MODELS[name].load(self.folder / "models" / name, device)

    def language_spec(self, width: tuple[int, int, int], **recipe: Any) -> LanguageModelSpec:
        """Return the spec of an encoder: of the checkpoint, if there is one and this is the smaller, or a new one."""
        hidden, layers, heads = width
        common = {"max_length": self.size.max_length, "epochs": self.size.epochs, "learning_rate": 1e-4} | recipe
        if self.checkpoint is not None and width == self.size.small:
            return LanguageModelSpec(
                name="small", checkpoint=str(self.checkpoint), recipe=LanguageModelRecipe(**common)
            )
        scratch = {"hidden_size": hidden, "layers": layers, "heads": heads, "vocabulary": 8000}
        return LanguageModelSpec(name="new", architecture="bert", recipe=LanguageModelRecipe(**scratch | common))

    def graph_spec(self, **recipe: Any) -> GraphNetworkSpec:
        chosen = GraphNetworkRecipe(**{"epochs": self.size.graph_epochs} | recipe)
        return GraphNetworkSpec(name="graph", architecture="graphsage", relation=RELATION, recipe=chosen)


MODELS: dict[str, type[Candidate]] = {
    "cross-encoder, small": LanguageModel,
    "cross-encoder, large": LanguageModel,
    "bi-encoder, small": LanguageModel,
    "graph network": GraphNetwork,
}
SERVED = ("cross-encoder, small", "bi-encoder, small", "graph network")  # together in the replicas


def prepare(folder: Path, size: Size, device: str, data: Path | None, checkpoint: Path | None, seed: int) -> Ground:
    """Write the frames and return the ground.

    Args:
        folder: scratch folder.
        size: of everything.
        device: torch device that is measured.
        data: folder with the official file names; None for a generated world with texts as long as ESCI's.
        checkpoint: Hugging Face folder of the smaller encoder, None for random weights.
        seed: of everything.
    """
    if data is None:
        dataset = load_esci(synthesize(folder / "world", queries=max(60, size.pairs // 3), seed=seed, behaviour=False))
        dataset = replace(dataset, products=lengthened(dataset.products, seed))
    else:
        dataset = load_esci(data)
    train, test = (dataset.pairs[dataset.pairs["split"] == split] for split in ("train", "test"))
    chosen = some_queries(train, round(size.pairs * (1 + VALIDATION_SHARE)), seed)
    held = salted_uniform(chosen["query_key"].to_numpy(), "validation") < VALIDATION_SHARE
    hidden = np.concatenate([chosen[held]["query_key"].to_numpy(), test["query_key"].to_numpy()])
    frames = {
        "fit": chosen[~held], "validation": chosen[held], "test": test, "products": dataset.products,
        "edges": edges(dataset, RELATION, np.unique(hidden)),
    }  # fmt: skip
    for name in _FRAMES:
        write_frame(frames[name].reset_index(drop=True), folder / f"{name}.arrow")
    return Ground(size, device, folder, checkpoint, seed)


def fit_models(ground: Ground) -> list[str]:
    """Fit and save every model, on the device that is measured; return their names.

    Weights of the larger encoder are random but for a few steps: its speed does not depend on them.
    """
    size = ground.size
    specs = {
        "cross-encoder, small": ground.language_spec(size.small),
        "cross-encoder, large": ground.language_spec(size.large, epochs=1),
        "bi-encoder, small": ground.language_spec(size.small, style="bi_encoder"),
        "graph network": ground.graph_spec(),
    }
    for name, spec in specs.items():
        work = ground.folder / "fits" / name
        data = ground.fit_data(ground.device, work, ground.seed, pairs=64 if "large" in name else 0)
        MODELS[name](spec).fit(data).save(ground.folder / "models" / name)
    return list(specs)


def some_pairs(ground: Ground, count: int) -> pd.DataFrame:
    """Return `count` pairs of the test split, repeated when it has fewer."""
    test = ground.frame("test")
    rows = np.random.default_rng(ground.seed).permutation(len(test))
    return test.iloc[np.resize(rows, count)].reset_index(drop=True)
