"""Embeddings that members compute ahead of requests: loaded, checked, repaired, and refreshed when edges change."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from esci_tournament.registry.errors import SpecError, TournamentError
from esci_tournament.registry.files import folder_name
from esci_tournament.tasks.data.behaviour import SEVERAL_EDGE_COLUMNS
from esci_tournament.tasks.data.behaviour import edges as edges_of
from esci_tournament.tasks.data.store import open_dataset
from esci_tournament.tasks.ensemble.ensemble import member_folders
from esci_tournament.tasks.families import seal
from esci_tournament.tasks.families.loading import class_of, load_candidate
from esci_tournament.tasks.families.protocol import Candidate, Progress, refreshes, silent

_log = logging.getLogger("scorer")


def make_whole(ensemble: Path, device: str = "cpu") -> dict[str, str]:
    """Check the embeddings that the members of an ensemble have computed ahead, and repair them in place.

    Damaged ones are computed anew, or put aside so that the member computes them for each request. Damaged files are
    never used. Call it before the members are loaded.

    Args:
        ensemble: the ensemble's folder, as `write_ensemble` wrote it; files in it are replaced.
        device: torch device to compute on, such as "cpu" or "cuda:0".

    Returns:
        Candidate id -> what was found or done (see :meth:`Candidate.mend`); members that compute nothing ahead are left
        out.
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
    """Load or compute the product vectors of the members that can use them.

    It may run beside requests: a member uses its vectors once they are complete. A product without a vector is encoded
    for each request, so that answers are right with few or old vectors too. All other vectors of these members in
    `store` are removed.

    Args:
        members: candidate id -> model.
        products: called without arguments when something has to be computed; returns the catalogue, columns of
            `Dataset.products`.
        store: folder in which vectors are kept, a folder for each member.
        data_version: version of the catalogue's data.
        limit: number of products to hold, the most retrieved ones first; None for all.
        counts: product id -> how often it was retrieved.
        progress: called with the share done in [0, 1] and a word on what is being done.

    Returns:
        Candidate id -> number of products whose vectors it uses; members that use none are left out.
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
    """Load the product vectors that :func:`embed` has put into `store`; damaged ones are not used.

    Args:
        members: candidate id -> model.
        store: folder in which vectors are kept.
        data_version: version of the catalogue's data.
        limit: number of products that :func:`embed` was given; None for all.

    Returns:
        Candidate id -> number of products whose vectors it uses; members without vectors are left out.
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
    return store / folder_name(member) / f"{data_version[:16]}-{'all' if limit is None else limit}"


def keep_most_retrieved(
    members: Mapping[str, Candidate], products: pd.DataFrame, limit: int, counts: Mapping[str, int] | None = None
) -> None:
    """Drop all but the embeddings of the most retrieved products from memory; others are computed from their text.

    Args:
        members: candidate id -> model.
        products: the catalogue, columns of `Dataset.products`.
        limit: number of products to keep.
        counts: product id -> how often it was retrieved.
    """
    for member in members.values():
        if member.products_ahead > limit:
            member.keep_products(most_retrieved(products, limit, counts))


def refresh(
    members: Mapping[str, Candidate],
    edges: Callable[[tuple[str, ...]], pd.DataFrame],
    products: pd.DataFrame,
) -> dict[str, int]:
    """Give changed edges and products to every member that can use them without being fitted again.

    Args:
        members: candidate id -> model; changed in place.
        edges: called with names of relations; returns all their edges as they are now, columns as in `FitData.edges`,
            and no rows for no relation.
        products: the catalogue as it is now, columns of `Dataset.products`; the edges name its rows.

    Returns:
        Candidate id -> number of products computed anew. A member that cannot be refreshed stays as it is, and is left
        out.
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
    """Give the edges and products of a loaded data set to every member that can use them; see :func:`refresh`.

    The edges of all queries are used, those of judged queries too, because a model that serves is not judged any more.

    Args:
        members: candidate id -> model; changed in place.
        folder: folder of the loaded data set, in the stage store.

    Returns:
        Candidate id -> number of products computed anew.
    """
    dataset = open_dataset(folder)

    def edges(relations: tuple[str, ...]) -> pd.DataFrame:
        if not relations:
            return pd.DataFrame(columns=[*SEVERAL_EDGE_COLUMNS])
        return edges_of(dataset, relations if len(relations) > 1 else relations[0], np.zeros(0, dtype=np.uint64))

    return refresh(members, edges, dataset.products)


def refreshed_copy(ensemble: Path, data: Path, target: Path, device: str = "cpu") -> dict[str, int]:
    """Write a copy of an ensemble whose members know the edges and products of newer data, where they can.

    Files that do not change are hard links to those of the original, where the file system allows it.

    Args:
        ensemble: the ensemble's folder, as `write_ensemble` wrote it.
        data: folder of a loaded data set, in the stage store.
        target: an empty folder that the copy is written into.
        device: torch device to compute on, such as "cpu" or "cuda:0".

    Returns:
        Candidate id -> number of products computed anew. A member that cannot be refreshed is copied as it is, and is
        left out.
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
    """Make a hard link, or else a copy; a link is safe because files of embeddings are replaced, not written into."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def most_retrieved(products: pd.DataFrame, limit: int | None, counts: Mapping[str, int] | None = None) -> pd.DataFrame:
    """Return the products that were retrieved most often; among equals the first ones of the catalogue.

    Args:
        products: the catalogue; a column product_id is needed.
        limit: number of products; None for all.
        counts: product id -> how often it was retrieved; products that are absent count 0.

    Returns:
        Rows of `products` in their order, on a new index; `products` itself when all of them are wanted.

    Example:
        >>> catalogue = pd.DataFrame({"product_id": ["a", "b", "c"]})
        >>> most_retrieved(catalogue, 2, {"c": 5})["product_id"].tolist()
        ['a', 'c']
    """
    if limit is None or limit >= len(products):
        return products
    often = products["product_id"].astype(str).map(dict(counts or {})).fillna(0).to_numpy()
    return products.iloc[np.sort(np.argsort(-often, kind="stable")[:limit])].reset_index(drop=True)
