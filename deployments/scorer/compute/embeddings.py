"""What members have computed ahead of requests: held, checked, made whole when damaged, refreshed when edges change."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from esci_tournament.registry.errors import SpecError, TournamentError
from esci_tournament.tasks.data.behaviour import SEVERAL_EDGE_COLUMNS
from esci_tournament.tasks.data.behaviour import edges as edges_of
from esci_tournament.tasks.data.store import open_dataset
from esci_tournament.tasks.ensemble.ensemble import member_folders
from esci_tournament.tasks.families import seal
from esci_tournament.tasks.families.loading import class_of, load_candidate
from esci_tournament.tasks.families.protocol import Candidate, Progress, refreshes, silent

_log = logging.getLogger("scorer")


def make_whole(ensemble: Path, device: str = "cpu") -> dict[str, str]:
    """Check what the members of an ensemble's folder have computed ahead, and mend it in place.

    What is damaged is computed anew, or put aside so that the member computes it when it is asked. A damaged file never
    answers.

    Args:
        ensemble: a folder of this machine's own, as `write_ensemble` wrote it, before its members are loaded.
        device: where to compute.

    Returns:
        Member -> what was found or done (see :meth:`Candidate.mend`); those that compute nothing ahead are left out.
    """
    found = {name: class_of(folder).mend(folder, device) for name, folder in member_folders(ensemble).items()}
    return {name: what for name, what in found.items() if what is not None}


def embed(
    members: Mapping[str, Candidate],
    products: Callable[[], pd.DataFrame],
    store: Path,
    data_version: str,
    limit: int | None = None,
    counts: Mapping[str, int] | None = None,
    progress: Progress = silent,
) -> dict[str, int]:
    """Have the members that can use product vectors computed ahead, found in `store` or computed now.

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
    for name, member in _embedding(members).items():
        folder = _vectors(store, name, data_version, limit)
        if name not in held:
            if frame is None:
                frame = most_retrieved(products(), limit, counts)
            shutil.rmtree(folder, ignore_errors=True)
            member.embed_products(frame, folder, progress)
            held[name] = member.products_ahead
        for other in folder.parent.iterdir():
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
    return held


def hold_vectors(
    members: Mapping[str, Candidate], store: Path, data_version: str, limit: int | None = None
) -> dict[str, int]:
    """Have members use the product vectors that :func:`embed` has put into `store`, where they are sound.

    Returns:
        Member -> products whose vectors it uses; members without vectors are left out.
    """
    held = {}
    for name, member in _embedding(members).items():
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
        held[name] = member.products_ahead
    return held


def _embedding(members: Mapping[str, Candidate]) -> dict[str, Candidate]:
    return {name: member for name, member in members.items() if member.embeds_products}


def _vectors(store: Path, member: str, data_version: str, limit: int | None) -> Path:
    return store / member.replace("/", "-") / f"{data_version[:16]}-{'all' if limit is None else limit}"


def keep_most_retrieved(
    members: Mapping[str, Candidate], products: pd.DataFrame, limit: int, counts: Mapping[str, int] | None = None
) -> None:
    """Hold the embeddings of the most retrieved products alone, in memory; all others are computed from their text."""
    for member in members.values():
        if member.products_ahead > limit:
            member.keep_products(most_retrieved(products, limit, counts))


def refresh(
    members: Mapping[str, Candidate],
    edges: Callable[[tuple[str, ...]], pd.DataFrame],
    products: pd.DataFrame,
) -> dict[str, int]:
    """Take up changed edges and products in every member that can; return member -> products computed anew.

    A member that cannot be refreshed goes on with what it has, and is left out of the answer.

    Args:
        edges: relations -> all their edges as they are now, columns as in `FitData`; none for no relation.
        products: the catalogue as it is now; the edges name its rows.
    """
    done: dict[str, int] = {}
    for name, member in members.items():
        if refreshes(type(member)):
            try:
                done[name] = member.refresh(edges(member.relations_of(member.spec)), products)
            except TournamentError as error:
                _log.warning("embeddings of %s are not refreshed: %s", name, error)
    return done


def refresh_from(members: Mapping[str, Candidate], folder: Path) -> dict[str, int]:
    """Take up the edges and products of a loaded data set, whose folder is in the stage store; see :func:`refresh`.

    All its behaviour counts, that of judged queries too: who serves is not judged any more.
    """
    dataset = open_dataset(folder)

    def edges(relations: tuple[str, ...]) -> pd.DataFrame:
        if not relations:
            return pd.DataFrame(columns=[*SEVERAL_EDGE_COLUMNS])
        return edges_of(dataset, relations if len(relations) > 1 else relations[0], np.zeros(0, dtype=np.uint64))

    return refresh(members, edges, dataset.products)


def refreshed_copy(ensemble: Path, data: Path, target: Path, device: str = "cpu") -> dict[str, int]:
    """Write an ensemble into another folder, with the edges and products of newer data in the members that take them.

    Args:
        ensemble: as `write_ensemble` wrote it. data: folder of a loaded data set. target: an empty folder.
        device: where to compute.

    Returns:
        Member -> products computed anew; one that cannot be refreshed goes along as it is, and is left out.
    """
    folders = member_folders(ensemble)
    able = {name: folder for name, folder in folders.items() if refreshes(class_of(folder))}
    members = {name: load_candidate(folder, device) for name, folder in able.items()}
    changed = refresh_from(members, data) if members else {}
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
        members[name].save(place)
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
