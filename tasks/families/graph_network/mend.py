"""Check the precomputed files of a saved graph network, and repair them."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from esci_tournament.registry.files import publish, temporary_folder
from esci_tournament.tasks.candidates.device import resolve_device
from esci_tournament.tasks.families import seal
from esci_tournament.tasks.families.graph_network.catalogue import EmbeddingCatalogue
from esci_tournament.tasks.families.graph_network.memory import GraphMemory
from esci_tournament.tasks.families.graph_network.networks import GraphPairNetwork
from esci_tournament.tasks.families.graph_network.refresh import recomputed
from esci_tournament.tasks.families.graph_network.spec import GraphNetworkSpec
from esci_tournament.tasks.families.protocol import FROM_TEXT, REBUILT, WHOLE

_log = logging.getLogger("scorer")
_OF_TEXTS = ("catalogue_keys.npy", "catalogue_rows.npy", "catalogue_texts.npy")


def mended(folder: Path, device: str) -> str | None:
    """Check the precomputed files of a saved model, and repair them in place.

    Embeddings that differ from their seal are computed anew from graph and texts when these are sound. Otherwise they
    are removed, and the model computes every product from its text. A damaged file is never used to score.

    Args:
        folder: Of the model. No process may have loaded it.
        device: Where to compute, such as "cpu", "cuda:0" or "auto".

    Returns:
        :data:`WHOLE`, :data:`REBUILT` or :data:`FROM_TEXT`; None when the folder holds nothing that was computed ahead.
    """
    if not any(folder.glob("catalogue_*.npy")):
        return None
    damaged = seal.broken(folder)
    if not damaged:
        return WHOLE
    _log.warning("%s: %s not as it was computed", folder.name, ", ".join(damaged))
    spec = GraphNetworkSpec.model_validate(json.loads((folder / "spec.json").read_text(encoding="utf-8")))
    done = FROM_TEXT
    network = _network(folder, spec)
    catalogue = EmbeddingCatalogue.empty(spec.recipe.hidden_size, network.products.inputs - 1)
    if not [name for name in damaged if name in (*_OF_TEXTS, seal.FILE) or name.startswith("graph/")]:
        memory = GraphMemory.load(folder)
        if memory is not None:
            keys, rows, texts = (np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in _OF_TEXTS)
            states = np.zeros((0, spec.recipe.hidden_size), dtype=np.float16)
            held = EmbeddingCatalogue(keys, rows, states, texts, texts)
            fanout = -(-spec.recipe.fanout // len(spec.relations))
            where = resolve_device(device)
            tower = network.products.to(where)
            catalogue, done = recomputed(tower, memory, held, fanout, where, folder), REBUILT
    # The arrays may be views of files that are about to be replaced
    kept = EmbeddingCatalogue(*(np.array(getattr(catalogue, name)) for name in EmbeddingCatalogue.__dataclass_fields__))
    with temporary_folder(folder, "catalogue") as made:
        kept.save(made)
        for path in made.iterdir():
            publish(path, folder / path.name)
    if done == FROM_TEXT:
        shutil.rmtree(folder / "graph", ignore_errors=True)  # what stands there fits no catalogue any more
    seal.seal(folder, [*folder.glob("catalogue_*.npy"), *folder.glob("graph/**/*.npy")])
    return done


def _network(folder: Path, spec: GraphNetworkSpec) -> GraphPairNetwork:
    weights = load_file(folder / "network.safetensors")
    network = GraphPairNetwork.of(spec, len(weights["products.text_scale"]))
    network.load_state_dict(weights)
    return network.eval()
