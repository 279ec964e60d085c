"""Obtain the newest data as a folder with the official file names, from a folder, a URL or a database."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from esci_tournament.registry.errors import UsageError
from esci_tournament.registry.files import disk_in_words, publish, temporary_folder
from esci_tournament.registry.settings import Settings
from esci_tournament.tasks.data.archive import fetch_archive, is_archive
from esci_tournament.tasks.data.download import download, fetch_folder, has_pointers
from esci_tournament.tasks.data.query import read_database

Progress = Callable[[float, str], None]
SQL = "sql"


def obtain(settings: Settings, data: str | None = None, progress: Progress = lambda share, doing: None) -> Path:
    """Return a folder with the newest data.

    A folder is used where it stands. What comes from elsewhere is put into the home, whole or not at all: it is
    fetched beside what was fetched last time and takes its place in one rename.

    Args:
        settings: Where data comes from, and the home.
        data: Folder, http(s) address of an archive or of a folder with the official files, or "sql"; default: the
            setting `data`.
        progress: Called with the share done in [0, 1] and what is being done.

    Returns:
        The folder that is named, whether it exists or not, or `data/<source>` of the home.

    Raises:
        UsageError: If nothing says where the data is, or a setting for `sql` is missing.
        DataError: If it cannot be fetched, or is not what it should be.
        StoreError: If the disk is full.
    """
    wanted = data or settings.data
    if not wanted:
        raise UsageError(
            "nothing says where the data is; name a folder or URL with --data, or set `data` in tournament.toml or "
            "TOURNAMENT_DATA"
        )
    if wanted == SQL:
        return _put(settings.home, SQL, lambda folder: read_database(settings, folder, progress))
    if wanted.startswith(("http://", "https://")):
        most = int(settings.data_max_gib * 2**30)
        return _put(
            settings.home, f"url-{_name_of(wanted)}", lambda folder: _fetch(wanted, folder, progress, most), True
        )
    return Path(wanted).expanduser()


def _fetch(url: str, folder: Path, progress: Progress, most_bytes: int) -> None:
    if is_archive(url):
        fetch_archive(url, folder, progress, most_bytes)
    elif has_pointers(url):
        download(folder, url, progress=progress)
    else:
        fetch_folder(url, folder, progress, most_bytes)


def _put(home: Path, name: str, fill: Callable[[Path], object], resumable: bool = False) -> Path:
    """Return the folder `data/<name>` of the home after `fill` has filled its successor.

    A successor that can be resumed starts with the files of last time and is kept when it fails.
    """
    place = home / "data" / name
    with disk_in_words("newest data", home):
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(place.with_name(f"{name}.lock")):
            if resumable:
                successor = place.with_name(f"{name}.fetching")
                if not successor.is_dir():
                    _link(place, successor)
                fill(successor)
                _replace(place, successor)
            else:
                with temporary_folder(place.parent, name) as successor:
                    fill(successor)
                    _replace(place, successor)
    return place


def _link(source: Path, target: Path) -> None:
    """Make a folder with the files of another one, without copying them; empty when there is no other one."""
    target.mkdir()
    for file in source.glob("*") if source.is_dir() else ():
        os.link(file, target / file.name)


def _replace(place: Path, successor: Path) -> None:
    old = place.with_name(f"{place.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if place.is_dir():
        publish(place, old)
    publish(successor, place)
    shutil.rmtree(old, ignore_errors=True)


def _name_of(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:16]
