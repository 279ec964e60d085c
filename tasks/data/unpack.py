"""Unpack chosen files of a zip or tar with limits on bytes, number and ratio; this runs in a child process."""

from __future__ import annotations

import errno
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO

from esci_tournament.registry.border_child import say
from esci_tournament.registry.errors import DataError, StoreError
from esci_tournament.registry.files import disk_in_words, publish

MOST_ENTRIES = 10_000  # of an archive, whatever they are
MOST_RATIO = 200  # unpacked bytes for a packed one; text packs to a tenth, repetitive logs to a fiftieth
FREE_BYTES = 64 * 2**20  # below this no ratio is asked
_CHUNK = 1 << 20

# Whatever the libraries raise on what is damaged, encrypted, or packed in a way that they do not know
UNREADABLE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError),
    *(ValueError, RuntimeError, ArithmeticError, LookupError, AttributeError, TypeError, AssertionError),
)
# Errors of the disk and not of the archive
_DISK = {errno.EACCES, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOENT, errno.EPERM, errno.EROFS}


def unpack_files(archive: str, folder: str, name: str, wanted: list[str], most_bytes: int) -> list[str]:
    """Unpack files by their bare names, so that no path in the archive leads out of the folder.

    Args:
        archive: The archive on disk.
        folder: An existing folder, which gets them.
        name: How error messages call the archive.
        wanted: Bare names of the files; others are left out.
        most_bytes: Bytes that all entries together may have when they are unpacked.

    Returns:
        The names that were found.

    Raises:
        DataError: If it cannot be read, holds a file twice, or is larger than it may be.
        StoreError: If the folder cannot be written.
    """
    found: list[str] = []
    meter = _Meter(Path(archive).stat().st_size, most_bytes, name)
    try:
        with disk_in_words("newest data", Path(folder)):
            for file, stream in _members(Path(archive), frozenset(wanted), meter):
                if file in found:
                    raise DataError(f"the archive holds {file} twice", file=name, advice="leave one of them out")
                found.append(file)
                with closing(stream):
                    _copy(stream, Path(folder, file), meter)
    except UNREADABLE as error:
        if isinstance(error, OSError) and error.errno in _DISK:
            raise StoreError(f"newest data: {folder} cannot be written: {error.strerror}") from error
        reason = str(error) or type(error).__name__
        raise DataError(f"the archive cannot be read ({reason})", file=name, advice="pack it again") from error
    return found


class _Meter:
    """Counts what comes out of an archive, and ends it where that is too much."""

    def __init__(self, packed: int, most: int, name: str) -> None:
        self._most, self._name = most, name
        self._ratio = max(FREE_BYTES, MOST_RATIO * packed)
        self.entries = self.skipped = self.copied = 0

    def entry(self) -> None:
        """Count an entry."""
        self.entries += 1
        if self.entries > MOST_ENTRIES:
            raise self._too_much(f"more than {MOST_ENTRIES:,} entries")

    def skip(self, size: int) -> None:
        """Count the bytes of an entry that is left out, which a compressed tar unpacks all the same."""
        self.skipped += max(size, 0)
        self._check()

    def copy(self, size: int) -> None:
        """Count bytes that are written."""
        self.copied += size
        self._check()
        say(min(1.0, self.copied / self._most))

    def _check(self) -> None:
        total = self.skipped + self.copied
        if total > self._most:
            raise self._too_much(f"more than {self._most / 2**30:.3g} GiB (setting data_max_gib)")
        if total > self._ratio:
            raise self._too_much(f"more than {MOST_RATIO} times its size")

    def _too_much(self, what: str) -> DataError:
        return DataError(f"the archive unpacks to {what}", file=self._name, advice="pack the files anew, without more")


def _copy(stream: IO[bytes], target: Path, meter: _Meter) -> None:
    # Written beside and then renamed: the file in place may be a hard link to the last fetch's.
    part = target.with_name(f"{target.name}.part")
    with part.open("wb") as file:
        while chunk := stream.read(_CHUNK):
            meter.copy(len(chunk))
            file.write(chunk)
    publish(part, target)


def _members(archive: Path, wanted: Collection[str], meter: _Meter) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the wanted files of an archive by their bare names."""
    read: Callable[[Path, Collection[str], _Meter], Iterator[tuple[str, IO[bytes]]]]
    read = _zipped if zipfile.is_zipfile(archive) else _tarred
    yield from read(archive, wanted, meter)


def _zipped(archive: Path, wanted: Collection[str], meter: _Meter) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as packed:
        for entry in packed.infolist():
            meter.entry()
            file = Path(entry.filename).name
            if file in wanted and not entry.is_dir():
                yield file, packed.open(entry)


def _tarred(archive: Path, wanted: Collection[str], meter: _Meter) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(archive) as packed:
        for member in packed:
            meter.entry()
            file = Path(member.name).name
            if file in wanted and member.isfile() and (stream := packed.extractfile(member)) is not None:
                yield file, stream
            else:
                meter.skip(member.size)
