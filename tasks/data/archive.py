"""Unpack an archive that holds the official files: zip or tar, compressed or not, the files at any depth."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from esci_tournament.registry.errors import DataError
from esci_tournament.registry.files import publish
from esci_tournament.tasks.data.download import fetch_address, without_secrets
from esci_tournament.tasks.data.layout import COLUMNS, EXAMPLES_FILE, PRODUCTS_FILE, UBI_FILES

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
Progress = Callable[[float, str], None]


def is_archive(url: str) -> bool:
    """Tell from its name whether an address points to an archive.

    Args:
        url: Address of a file; query and fragment are ignored, case does not matter.

    Returns:
        True when the path ends in one of :data:`SUFFIXES`.

    Example:
        >>> is_archive("https://example.org/esci.tar.gz?token=1")
        True
        >>> is_archive("https://example.org/esci/")
        False
    """
    return urlsplit(url).path.lower().endswith(SUFFIXES)


def fetch_archive(url: str, folder: Path, progress: Progress) -> None:
    """Fetch an archive and unpack the official files and logs that it holds into a folder; other members are ignored.

    Args:
        url: Address of the archive.
        folder: An existing folder; files in it that the archive lacks are removed.
        progress: Called with the share done in [0, 1] (fetching counts for 0.9) and what is being done.

    Raises:
        DataError: If it cannot be fetched or read, lacks an official file, or holds one twice.
    """
    packed = folder / "archive.part"
    fetch_address(url, packed, lambda share: progress(0.9 * share, "fetching the archive"))
    progress(0.9, "unpacking")
    try:
        unpack(packed, folder, without_secrets(url))
    finally:
        packed.unlink(missing_ok=True)


def unpack(archive: Path, folder: Path, name: str) -> None:
    """Unpack the official files and logs of an archive into an existing folder.

    Members are recognised by their bare names, so no path in the archive leads out of the folder. Other files that are
    in the folder are removed, except the archive itself.

    Args:
        archive: The archive on disk.
        folder: An existing folder.
        name: How error messages call the archive, such as its address without secrets.

    Raises:
        DataError: If the archive cannot be read, lacks an official file, or holds one twice.
    """
    found: set[str] = set()
    try:
        for file, stream in _members(archive):
            if file in found:
                raise DataError(f"the archive holds {file} twice", file=name, advice="leave one of them out")
            found.add(file)
            # Written beside and then renamed: the file in place may be a hard link to the last fetch's.
            part = folder / f"{file}.part"
            with closing(stream), part.open("wb") as target:
                shutil.copyfileobj(stream, target, 1 << 20)
            publish(part, folder / file)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, ValueError, RuntimeError) as error:
        raise DataError(
            f"the archive cannot be read ({error})", file=name, advice=f"it must be one of {', '.join(SUFFIXES)}"
        ) from error
    for file in (EXAMPLES_FILE, PRODUCTS_FILE):
        if file not in found:
            raise DataError(f"the archive does not hold {file}", file=name, advice="pack it in, at whatever depth")
    for left in folder.iterdir():
        if left.name not in found and left != archive:
            left.unlink()


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the known files of an archive by their bare names: whatever their paths are, none leaves the folder."""
    wanted = {*COLUMNS, *UBI_FILES}
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for entry in packed.infolist():
                file = Path(entry.filename).name
                if file in wanted and not entry.is_dir():
                    yield file, packed.open(entry)
        return
    with tarfile.open(archive) as packed:
        for member in packed:
            file = Path(member.name).name
            if file in wanted and member.isfile() and (stream := packed.extractfile(member)) is not None:
                yield file, stream
