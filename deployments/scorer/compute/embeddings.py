"""What members have computed ahead of requests: held, checked, made whole when damaged, refreshed when edges change."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.torch import load_file

from esci_tournament.registry.errors import SpecError, TournamentError
from esci_tournament.registry.files import temporary_folder
from esci_tournament.registry.specs import GraphNetworkSpec, Relation
from esci_tournament.tasks.candidates.device import resolve_device
from esci_tournament.tasks.data.behaviour import edges as edges_of
from esci_tournament.tasks.data.store import open_dataset
from esci_tournament.tasks.ensemble.served import member_folders
from esci_tournament.tasks.families import seal
from esci_tournament.tasks.families.graph_network.catalogue import Catalogue
from esci_tournament.tasks.families.graph_network.memory import GraphMemory
from esci_tournament.tasks.families.graph_network.model import GraphNetwork
from esci_tournament.tasks.families.graph_network.networks import PairNetwork
from esci_tournament.tasks.families.graph_network.refresh import recomputed
from esci_tournament.tasks.families.language_model.model import LanguageModel
from esci_tournament.tasks.families.protocol import Candidate, Progress, silent

_log = logging.getLogger("scorer")
_OF_TEXTS = ("catalogue_keys.npy", "catalogue_rows.npy", "catalogue_texts.npy")

WHOLE, REBUILT, FROM_TEXT = "whole", "rebuilt", "computed from text"


def make_whole(ensemble: Path, device: str = "cpu") -> dict[str, str]:
    """Check what the graph networks of an ensemble's folder have computed ahead, and mend it in place.

    Embeddings that are not what was sealed are computed anew from the graph and the texts when these are sound; else
    they are put aside, and the member computes every product from its text. A damaged file never answers.

    Args:
        ensemble: a folder of this machine's own, as `write_ensemble` wrote it, before its members are loaded.
        device: where to compute.

    Returns:
        Member -> what was found or done: :data:`WHOLE`, :data:`REBUILT` or :data:`FROM_TEXT`; graph networks only.
    """
    return {
        name: _make_whole(folder, device)
        for name, folder in member_folders(ensemble).items()
        if any(folder.glob("catalogue_*.npy"))
    }


def _make_whole(folder: Path, device: str) -> str:
    damaged = seal.broken(folder)
    if not damaged:
        return WHOLE
    _log.warning("%s: %s not as it was computed", folder.name, ", ".join(damaged))
    spec = GraphNetworkSpec.model_validate(json.loads((folder / "spec.json").read_text(encoding="utf-8")))
    done = FROM_TEXT
    network = _network(folder, spec)
    catalogue = Catalogue.empty(spec.recipe.hidden_size, network.products.inputs - 1)
    if not [name for name in damaged if name in (*_OF_TEXTS, seal.FILE) or name.startswith("graph/")]:
        memory = GraphMemory.load(folder)
        if memory is not None:
            keys, rows, texts = (np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in _OF_TEXTS)
            states = np.zeros((0, spec.recipe.hidden_size), dtype=np.float16)
            held = Catalogue(keys, rows, states, texts, texts)
            fanout = -(-spec.recipe.fanout // len(spec.relations))
            where = resolve_device(device)
            tower = network.products.to(where)
            catalogue, done = recomputed(tower, memory, held, fanout, where, folder), REBUILT
    # The arrays may be views of files that are about to be replaced
    kept = Catalogue(*(np.array(getattr(catalogue, name)) for name in Catalogue.__dataclass_fields__))
    with temporary_folder(folder, "catalogue") as made:
        kept.save(made)
        for path in made.iterdir():
            path.replace(folder / path.name)
    if done == FROM_TEXT:
        shutil.rmtree(folder / "graph", ignore_errors=True)  # what stands there fits no catalogue any more
    seal.seal(folder, [*folder.glob("catalogue_*.npy"), *folder.glob("graph/**/*.npy")])
    return done


def _network(folder: Path, spec: GraphNetworkSpec) -> PairNetwork:
    weights = load_file(folder / "network.safetensors")
    dimensions = len(weights["products.text_scale"])
    network = PairNetwork(spec.architecture, spec.recipe, dimensions, len(spec.relations))
    network.load_state_dict(weights)
    return network.eval()


def embed(
    members: Mapping[str, Candidate],
    products: Callable[[], pd.DataFrame],
    store: Path,
    data_version: str,
    limit: int | None = None,
    counts: Mapping[str, int] | None = None,
    progress: Progress = silent,
) -> dict[str, int]:
    """Have the bi-encoders among the members use product vectors computed ahead, found in `store` or computed now.

    It may run beside requests: a member goes over to its vectors when they are complete. A product that is not among
    them is encoded as before, so that vectors may be few or old, and never wrong.

    Args:
        members: candidate id -> model.
        products: returns the catalogue, columns of `Dataset.products`; asked for only when something is to be computed.
        store: folder of vectors. data_version: of the catalogue.
        limit: products to hold, the most retrieved ones first; None for all.
        counts: product id -> how often it was retrieved.
        progress: called with the share done.

    Returns:
        Member -> products whose vectors it uses.
    """
    frame: pd.DataFrame | None = None
    held = hold_vectors(members, store, data_version, limit)
    for name, member in _bi_encoders(members).items():
        folder = _vectors(store, name, data_version, limit)
        if name not in held:
            if frame is None:
                frame = most_retrieved(products(), limit, counts)
            shutil.rmtree(folder, ignore_errors=True)
            held[name] = len(member.embed_products(frame, folder, progress).keys)
        for other in folder.parent.iterdir():
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
    return held


def hold_vectors(
    members: Mapping[str, Candidate], store: Path, data_version: str, limit: int | None = None
) -> dict[str, int]:
    """Have bi-encoders use the product vectors that :func:`embed` has put into `store`, where they are sound.

    Returns:
        Member -> products whose vectors it uses; bi-encoders without vectors are left out.
    """
    held = {}
    for name, member in _bi_encoders(members).items():
        folder = _vectors(store, name, data_version, limit)
        if not folder.is_dir():
            continue
        if damaged := seal.broken(folder):
            _log.warning("vectors of %s: %s not as computed; they are not used", name, ", ".join(damaged))
            continue
        try:
            member.use_products(folder)
        except SpecError:  # those of another model
            continue
        assert member.ahead is not None
        held[name] = len(member.ahead.keys)
    return held


def _bi_encoders(members: Mapping[str, Candidate]) -> dict[str, LanguageModel]:
    return {
        name: member
        for name, member in members.items()
        if isinstance(member, LanguageModel) and member.spec.recipe.style == "bi_encoder"
    }


def _vectors(store: Path, member: str, data_version: str, limit: int | None) -> Path:
    return store / member.replace("/", "-") / f"{data_version[:16]}-{'all' if limit is None else limit}"


def keep_most_retrieved(
    members: Mapping[str, Candidate], products: pd.DataFrame, limit: int, counts: Mapping[str, int] | None = None
) -> None:
    """Hold the embeddings of the most retrieved products alone, in memory; all others are computed from their text."""
    for member in members.values():
        if isinstance(member, GraphNetwork) and member.catalogue is not None and len(member.catalogue.keys) > limit:
            rows = member.rows_of(most_retrieved(products, limit, counts))
            member.catalogue = member.catalogue.only(np.unique(rows[rows >= 0]))


def refresh(
    members: Mapping[str, Candidate],
    edges: Callable[[tuple[Relation, ...]], pd.DataFrame],
    products: pd.DataFrame,
) -> dict[str, int]:
    """Take up changed edges in every graph network; return member -> products computed anew.

    A member that cannot be refreshed goes on with what it has, and is left out of the answer.

    Args:
        edges: relations -> all their edges as they are now, columns as in `FitData`.
        products: the catalogue as it is now; the edges name its rows.
    """
    done: dict[str, int] = {}
    for name, member in members.items():
        if isinstance(member, GraphNetwork):
            try:
                done[name] = member.refresh(edges(tuple(member.spec.relations)), products)
            except TournamentError as error:
                _log.warning("embeddings of %s are not refreshed: %s", name, error)
    return done


def refresh_from(members: Mapping[str, Candidate], folder: Path) -> dict[str, int]:
    """Take up the edges and products of a loaded data set, whose folder is in the stage store; see :func:`refresh`.

    All its behaviour counts, that of judged queries too: who serves is not judged any more.
    """
    dataset = open_dataset(folder)
    nobody = np.zeros(0, dtype=np.uint64)
    return refresh(
        members,
        lambda relations: edges_of(dataset, relations if len(relations) > 1 else relations[0], nobody),
        dataset.products,
    )


def refreshed_copy(ensemble: Path, data: Path, target: Path, device: str = "cpu") -> dict[str, int]:
    """Write an ensemble into another folder, its graph networks with the edges and products of newer data.

    Args:
        ensemble: as `write_ensemble` wrote it. data: folder of a loaded data set. target: an empty folder.
        device: where to compute.

    Returns:
        Graph network -> products computed anew; one that cannot be refreshed goes along as it is, and is left out.
    """
    folders = member_folders(ensemble)
    networks: dict[str, Candidate] = {}
    for name, folder in folders.items():
        if any(folder.glob("catalogue_*.npy")):
            networks[name] = GraphNetwork.load(folder, device)
    changed = refresh_from(networks, data) if networks else {}
    anew = {folders[name] for name in changed}
    shutil.copytree(
        ensemble,
        target,
        copy_function=_link,
        dirs_exist_ok=True,
        ignore=lambda folder, names: names if any(Path(folder).is_relative_to(one) for one in anew) else [],
    )
    for name in changed:
        place = target / folders[name].relative_to(ensemble)
        networks[name].save(place)
        for path in folders[name].iterdir():
            if path.is_file() and not (place / path.name).exists():
                _link(path, place / path.name)
    return changed


def _link(source: str | Path, target: str | Path) -> None:
    """Let a file stand in a second place; what is computed ahead is replaced and never written into."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def most_retrieved(products: pd.DataFrame, limit: int | None, counts: Mapping[str, int] | None = None) -> pd.DataFrame:
    """Return the `limit` products that were retrieved most often, or all; of equals the first in the catalogue."""
    if limit is None or limit >= len(products):
        return products
    often = products["product_id"].astype(str).map(dict(counts or {})).fillna(0).to_numpy()
    return products.iloc[np.sort(np.argsort(-often, kind="stable")[:limit])].reset_index(drop=True)
