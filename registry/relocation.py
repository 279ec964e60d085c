"""A home that was moved or copied: MLflow's database keeps artifacts under absolute paths, which are put right here."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlparse

from esci_tournament.registry.errors import StoreError

ARTIFACTS = "mlartifacts"  # the folder of the home below which a home's own MLflow keeps all artifacts
_BUSY_S = 30.0
# Every column in which MLflow's database keeps the place of artifacts; `source` is absent from runs on purpose, it
# names programs there.
_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
    ("trace_tags", "value"),
)


def local_path(address: str) -> Path | None:
    """Return the path that an artifact address of MLflow names on this machine, None for one elsewhere.

    Example:
        >>> local_path("file:///srv/100%25/mlartifacts"), local_path("s3://bucket/runs")
        (PosixPath('/srv/100%/mlartifacts'), None)
    """
    parsed = urlparse(address)
    if parsed.scheme not in ("", "file"):
        return None
    return Path(unquote(parsed.path) if parsed.scheme else address)


def location(folder: Path) -> str:
    """Return a folder as MLflow keeps places: a path, or an address where MLflow would take the path for one."""
    return folder.as_uri() if {"%", "?", "#"} & set(str(folder)) else str(folder)


def settle(database: Path, home: Path) -> list[Path]:
    """Let MLflow's database in a home name the artifacts of this home, when the home was moved or copied.

    The database itself says where the home stood: there its experiments were made. Artifacts of that place are looked
    for here, and all addresses are rewritten in one transaction, when some are here and that place has none that are
    not. So a copy is independent of the home it was made of, and what is kept elsewhere on purpose, or on a disk that
    is not mounted, stays as it is.

    Args:
        database: MLflow's SQLite file; nothing is done unless it exists and stands in `home`.
        home: The home in use.

    Returns:
        The places that were replaced by `home`; mostly none.

    Raises:
        StoreError: If the home was moved and the database is locked for half a minute, or cannot be written.
    """
    home = home.resolve()
    if database.resolve().parent != home or not database.is_file():
        return []
    with closing(sqlite3.connect(database, timeout=_BUSY_S, isolation_level=None)) as connection:
        try:
            former = [place for place in _homes(connection) if place != home and _is_moved(connection, place, home)]
        except sqlite3.Error:  # no database that can be read; MLflow, which opens it next, says it in its own words
            return []
        try:
            if former:
                connection.execute("BEGIN IMMEDIATE")
                for place in former:
                    _rewrite(connection, place / ARTIFACTS, home / ARTIFACTS)
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise StoreError(
                f"{database} was moved here from {former[0]}, and its artifact addresses cannot be put right: {error}; "
                "make it writable, end what else uses it, and run the same command again"
            ) from error
        return former


def _homes(connection: sqlite3.Connection) -> list[Path]:
    """Return the homes in which experiments of the database were made."""
    places = (local_path(value) for _, value in _values(connection, "experiments", "artifact_location"))
    return sorted({place.parent.parent for place in places if place and place.parent.name == ARTIFACTS})


def _is_moved(connection: sqlite3.Connection, former: Path, home: Path) -> bool:
    """Tell whether the artifacts of a former home stand in `home` now, or there are none."""
    old, new = former / ARTIFACTS, home / ARTIFACTS
    if not former.is_absolute() or (old.exists() and new.exists() and os.path.samefile(old, new)):
        return False
    here = 0
    for _, value in _values(connection, "runs", "artifact_uri"):
        if (below := _below(value, old)) is None:
            continue
        found = (new / below).exists()
        if not found and (old / below).exists():
            return False
        here += found
    return here > 0 or not former.exists()


def _rewrite(connection: sqlite3.Connection, old: Path, new: Path) -> None:
    for table, column in _PLACES:
        for row, value in _values(connection, table, column):
            if (below := _below(value, old)) is not None:
                place = (new / below).as_uri() if value.startswith("file:") else location(new / below)
                connection.execute(f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = ?', (place, row))


def _below(value: str, folder: Path) -> Path | None:
    """Return the path of an address below a folder, None when it is elsewhere."""
    place = local_path(value)
    return place.relative_to(folder) if place is not None and place.is_relative_to(folder) else None


def _values(connection: sqlite3.Connection, table: str, column: str) -> Iterator[tuple[int, str]]:
    """Yield row id and text of a column, nothing where a release of MLflow has no such column."""
    if column in {row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')}:
        yield from connection.execute(
            f'SELECT rowid, "{column}" FROM "{table}" WHERE "{column}" LIKE ?', (f"%{ARTIFACTS}%",)
        ).fetchall()
