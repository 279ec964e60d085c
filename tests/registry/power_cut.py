"""A disk that loses power: what stands on it is tracked, and a tree can be made that a cut at some moment may leave.

A file system promises no more than this: the bytes of a file are on the disk once the file was synced, a name in a
folder once the folder was. All else may have arrived or not, each name and each file on its own, and of a file's bytes
a part.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

Entries = dict[str, int]  # name -> inode


@dataclass(frozen=True)
class Moment:
    """What stands in memory and on the disk between two calls to the system.

    Attributes:
        after: The call that has just ended.
        root: Inode of the folder that is watched.
        folders: Inode -> entries as a program sees them, and as the disk has them; None where nothing was synced.
        files: Inode -> bytes as a program sees them, and as the disk has them.
    """

    after: str
    root: int
    folders: dict[int, tuple[Entries | None, Entries | None]]
    files: dict[int, tuple[bytes | None, bytes | None]]

    def after_the_cut(self, target: Path, chance: random.Random | None = None) -> None:
        """Make the tree that is found when the power is back.

        Args:
            target: Folder that is made.
            chance: Draws what else has arrived on the disk; None for nothing but what was synced.
        """
        self._make(self.root, target, chance)

    def _make(self, inode: int, target: Path, chance: random.Random | None) -> None:
        if inode not in self.folders:
            target.write_bytes(self._bytes(inode, chance))
            return
        target.mkdir()
        seen, kept = ({} if entries is None else entries for entries in self.folders[inode])
        for name in sorted(seen.keys() | kept.keys()):
            found = seen.get(name) if chance is not None and chance.random() < 0.5 else kept.get(name)
            if found is not None:
                self._make(found, target / name, chance)

    def _bytes(self, inode: int, chance: random.Random | None) -> bytes:
        seen, kept = self.files.get(inode, (None, None))
        if chance is None or seen is None or seen == kept:
            return kept or b""
        arrived = seen[: chance.randrange(len(seen) + 1)]
        return chance.choice([kept or b"", arrived, arrived + bytes(len(seen) - len(arrived)), seen])


@dataclass
class Disk:
    """Watches a folder: every call that syncs, renames, makes or removes below it ends a moment.

    Attributes:
        root: The folder; what stands in it at first is on the disk.
        moments: What a cut after each of the calls would meet.
    """

    root: Path
    moments: list[Moment] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._folders: dict[int, Entries] = {}
        self._files: dict[int, bytes] = {}
        self._open: dict[int, int] = {}  # inodes that were synced are held open, so that their numbers are not reused
        for folder, _, names in os.walk(self.root):
            self._synced(Path(folder))
            for name in names:
                self._synced(Path(folder, name))
        self._note("start")

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Notice the calls of this process from now on."""
        for name in ("rename", "replace", "mkdir", "link", "unlink", "rmdir"):
            monkeypatch.setattr(os, name, self._noting(name, getattr(os, name)))
        fsync = os.fsync

        def sync(descriptor: int) -> None:
            fsync(descriptor)
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            if path.is_relative_to(self.root):
                self._synced(path)
                self._note("fsync")

        monkeypatch.setattr(os, "fsync", sync)

    def close(self) -> None:
        """Let go of what is held open."""
        for descriptor in self._open.values():
            os.close(descriptor)

    def _noting(self, name: str, call: Callable[..., object]) -> Callable[..., object]:
        def noted(*words: object, **more: object) -> object:
            self._note(f"before {name}")  # what a program wrote until now may have arrived already
            try:
                return call(*words, **more)
            finally:
                self._note(name)

        return noted

    def _synced(self, path: Path) -> None:
        inode = path.stat().st_ino
        if inode not in self._open:
            self._open[inode] = os.open(path, os.O_RDONLY)
        if path.is_dir():
            self._folders[inode] = _entries(path)
            for name in self._folders[inode]:
                held = (path / name).stat().st_ino
                if held not in self._open:
                    self._open[held] = os.open(path / name, os.O_RDONLY)
        else:
            self._files[inode] = path.read_bytes()

    def _note(self, after: str) -> None:
        folders: dict[int, tuple[Entries | None, Entries | None]] = {
            inode: (None, kept) for inode, kept in self._folders.items()
        }
        files: dict[int, tuple[bytes | None, bytes | None]] = {
            inode: (None, kept) for inode, kept in self._files.items()
        }
        for place, _, names in os.walk(self.root):
            with suppress(FileNotFoundError):
                inode = os.stat(place).st_ino
                folders[inode] = _entries(Path(place)), self._folders.get(inode)
            for name in names:
                with suppress(FileNotFoundError):
                    inode = os.stat(os.path.join(place, name)).st_ino
                    files[inode] = Path(place, name).read_bytes(), self._files.get(inode)
        self.moments.append(Moment(after, self.root.stat().st_ino, folders, files))


def _entries(folder: Path) -> Entries:
    return {one.name: one.inode() for one in os.scandir(folder)}
