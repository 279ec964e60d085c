"""Sizes and digests of files computed ahead, so that a damaged file is found before it is used."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from esci_tournament.registry.files import file_digest, write_atomically

FILE = "seal.json"


def seal(folder: Path, files: Iterable[Path]) -> None:
    """Write size (bytes) and SHA-256 of some files into `seal.json` of a folder.

    Args:
        folder: the folder that gets `seal.json`.
        files: existing files below `folder`.
    """
    marks = {path.relative_to(folder).as_posix(): [path.stat().st_size, file_digest(path)] for path in sorted(files)}
    write_atomically(folder / FILE, json.dumps(marks, indent=1).encode())


def broken(folder: Path) -> list[str]:
    """Return the sealed files that are missing or changed.

    Args:
        folder: a folder that :func:`seal` was called for.

    Returns:
        Paths relative to `folder`, with `/`; `seal.json` itself when it is damaged. Empty for a folder without a seal,
        which cannot be checked.
    """
    path = folder / FILE
    if not path.is_file():
        return []
    try:
        marks = json.loads(path.read_text(encoding="utf-8"))
        return [name for name, (size, digest) in marks.items() if not _is(folder / name, int(size), str(digest))]
    except (OSError, ValueError, TypeError, AttributeError):
        return [FILE]


def _is(path: Path, size: int, digest: str) -> bool:
    return path.is_file() and path.stat().st_size == size and file_digest(path) == digest
