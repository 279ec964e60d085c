"""Unpack an archive that holds the official files: zip or tar, compressed or not, the files at any depth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from esci_tournament.registry.border import in_child
from esci_tournament.registry.errors import DataError
from esci_tournament.tasks.data.download import MOST_BYTES, fetch_address, without_secrets
from esci_tournament.tasks.data.layout import COLUMNS, EXAMPLES_FILE, PRODUCTS_FILE
from esci_tournament.tasks.data.ubi_files import NAMES

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_SECONDS, _MEMORY_MIB = 3600.0, 1024
_ANSWER_BYTES = 64 * 2**20  # all reports of progress together, one for each MiB
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


def fetch_archive(url: str, folder: Path, progress: Progress, most_bytes: int = MOST_BYTES) -> None:
    """Fetch an archive and unpack the official files and logs that it holds into a folder; other members are ignored.

    Args:
        url: Address of the archive.
        folder: An existing folder; files in it that the archive lacks are removed.
        progress: Called with the share done in [0, 1] (fetching counts for 0.9) and what is being done.
        most_bytes: Bytes that it may have, packed or unpacked.

    Raises:
        DataError: If it cannot be fetched or read, lacks an official file, holds one twice, or is larger.
        StoreError: If the folder cannot be written.
    """
    packed = folder / "archive.part"
    fetch_address(url, packed, lambda share: progress(0.9 * share, "fetching the archive"), most_bytes=most_bytes)
    progress(0.9, "unpacking")
    try:
        unpack(packed, folder, without_secrets(url), most_bytes, lambda share: progress(0.9 + 0.1 * share, "unpacking"))
    finally:
        packed.unlink(missing_ok=True)


def unpack(
    archive: Path,
    folder: Path,
    name: str,
    most_bytes: int = MOST_BYTES,
    report: Callable[[float], None] = lambda share: None,
) -> None:
    """Unpack the official files and logs of an archive into an existing folder, in a child process.

    Members are recognised by their bare names, so no path in the archive leads out of the folder. Other files that are
    in the folder are removed, except the archive itself.

    Args:
        archive: The archive on disk.
        folder: An existing folder.
        name: How error messages call the archive, such as its address without secrets.
        most_bytes: Bytes that its entries may have together when they are unpacked.
        report: Called with the share of these bytes that is there, in [0, 1].

    Raises:
        DataError: If the archive cannot be read, lacks an official file, holds one twice, or unpacks to too much.
        StoreError: If the folder cannot be written.
    """
    found = in_child(
        "esci_tournament.tasks.data.unpack:unpack_files",
        {
            "archive": str(archive.absolute()),
            "folder": str(folder.absolute()),
            "name": name,
            "wanted": sorted({*COLUMNS, *NAMES}),
            "most_bytes": most_bytes,
        },
        doing=f"unpack the archive {name} (one of {', '.join(SUFFIXES)})",
        seconds=_SECONDS,
        memory_mib=_MEMORY_MIB,
        writes_mib=most_bytes // 2**20 + 1,
        answer_bytes=_ANSWER_BYTES,
        refusal=DataError,
        hear=lambda share: report(float(share)),
    )
    for file in (EXAMPLES_FILE, PRODUCTS_FILE):
        if file not in found:
            raise DataError(
                f"the archive does not hold {file}", file=name, advice="pack it in as one file, at whatever depth"
            )
    for left in folder.iterdir():
        if left.name not in found and left != archive:
            left.unlink()
