"""Results of stages, stored under their inputs, so that nothing is computed twice, also after a kill."""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from esci_tournament.registry.errors import NotFoundError, StoreError, UsageError
from esci_tournament.registry.files import (
    canonical_json,
    digest_of,
    disk_in_words,
    file_digest,
    make_folder,
    publish,
    set_aside,
    temporary_folder,
    write_atomically,
)

RECORD = "stage.json"

# The version of a stage's code. Raise it when the same inputs give another result, so that stored results of the
# old code are not taken for those of the new; a stage that is not named here has version 1.
CODE_VERSIONS: dict[str, int] = {"load": 2, "validate": 3, "profile": 2, "challenge": 3, "equipment": 2, "ensemble": 3}

_log = logging.getLogger("stages")
_STAGE = re.compile(r"[a-z][a-z0-9_]{0,39}")


class StageKey(str):
    """A key with what it was made of, which goes into the record of the result.

    Attributes:
        stage: Name of the stage.
        inputs: Name -> input, as JSON holds it.
    """

    stage: str
    inputs: dict[str, Any]


class StageStore:
    """A content-addressed store of folders, one for each stage and its inputs.

    A folder stands under its key only when it is complete: it is made under a temporary name beside it and published.
    Its record holds size and SHA-256 of every file, so that damage is found before the folder is used.

    Args:
        root: The folder of the store; made when the first result is.
        versions: Code version of each stage; default :data:`CODE_VERSIONS`.
    """

    def __init__(self, root: Path, versions: Mapping[str, int] | None = None) -> None:
        self.root = Path(root)
        self._versions = CODE_VERSIONS if versions is None else versions
        self._compared: dict[str, list[tuple[str, int, int]]] = {}

    def key(self, stage: str, **inputs: Any) -> StageKey:
        """Return the key of a stage and its inputs.

        It is `<stage>-<SHA-256>` over canonical JSON of stage, inputs and the version of the stage's code.

        Args:
            stage: Name of the stage: lower-case letters, digits and underscores, a letter first, 40 characters at most.
            inputs: Name -> all that the result follows from; content digests in place of files.

        Returns:
            The key.

        Raises:
            UsageError: If the stage's name is no lower-case word, or an input has no canonical JSON.

        Example:
            >>> StageStore(Path("stages")).key("train", seed=0).partition("-")[0]
            'train'
        """
        if not _STAGE.fullmatch(stage):
            raise UsageError(f"stage name {stage!r}; use a lower-case word such as 'train'")
        content = {"stage": stage, "inputs": inputs, "version": self._versions.get(stage, 1)}
        key = StageKey(f"{stage}-{digest_of(content)}")
        key.stage, key.inputs = stage, json.loads(canonical_json(inputs))
        return key

    def find(self, key: str) -> Path | None:
        """Return the finished folder of a key, None when there is none; its files are not compared with the record."""
        folder = self.root / key
        return folder if (folder / RECORD).is_file() else None

    def damaged(self, key: str) -> str:
        """Return what is wrong with the files of a finished stage; all of them are read.

        Args:
            key: Key of the stage.

        Returns:
            The files that are missing, changed or too many, in words. "" when all are as they were made, and for a
            stage without digests on record, from before they were kept, or one that is not there.
        """
        folder = self.find(key)
        if folder is None:
            return ""
        try:
            marks = self.record(key).get("files")
        except StoreError:
            return f"its record {RECORD} cannot be read"
        return "" if marks is None else _differences(folder, marks)

    def whole(self, key: str) -> Path:
        """Return the finished folder of a key whose files have just been compared with the record.

        Args:
            key: Key of the stage.

        Returns:
            The folder.

        Raises:
            NotFoundError: If the stage is not finished.
            StoreError: If it is damaged; the message says which files, and what to do.
        """
        folder = self.find(key)
        if folder is None:
            raise NotFoundError(f"stage {key} is not in {self.root}; run its tournament again")
        if words := self.damaged(key):
            raise StoreError(
                f"{folder} is damaged: {words}; it is not used. Check the disk and run the same command again: "
                "it sets the folder aside and makes the stage again where that gives the same"
            )
        return folder

    def sound(self, key: str) -> Path | None:
        """Return the finished folder of a key, None when there is none that can be used.

        A damaged folder is set aside under a name that begins with `.damaged-`, and the log says so. Files that nobody
        has written to since this store compared them are not read again.

        Args:
            key: Key of the stage.

        Returns:
            The folder, its files as they were made.
        """
        folder = self.find(key)
        if folder is None:
            return None
        stamps = _stamps(folder)
        if self._compared.get(key) == stamps or not self.damaged(key):
            self._compared[key] = stamps
            return folder
        with FileLock(self.root / ".damaged.lock"):
            words = self.damaged(key)  # another process may have made it again meanwhile
            if not words:
                return self.find(key)
            place = set_aside(self.root / key)
        _log.warning("stage %s is damaged: %s; what is left of it is kept in %s", key, words, place)
        return None

    def record(self, key: str) -> dict[str, Any]:
        """Return the record of a finished stage.

        Args:
            key: Key of the stage.

        Returns:
            `stage`, `inputs` (None when the key was a plain string), `seconds`, `finished_at` (ISO, UTC), and `files`:
            path of each file -> size in bytes and SHA-256 in hex. Stages of older versions have no `files`.

        Raises:
            StoreError: If the stage is not finished or its record is damaged.
        """
        path = self.root / key / RECORD
        try:
            record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StoreError(f"record of stage {key}: {path} cannot be read ({error}); delete its folder") from error
        return record

    @contextmanager
    def make(self, key: str) -> Iterator[Path]:
        """Yield an empty folder to fill; when the block ends well it becomes the folder of `key`, in one rename.

        When another process was faster its folder stands and this one is thrown away. When the block fails nothing
        is kept but the scratch folder of :meth:`work`.

        Args:
            key: Key of the stage.

        Yields:
            The folder, under a temporary name.

        Raises:
            StoreError: If the disk is full.
        """
        started = time.monotonic()
        with disk_in_words(f"stage {key}", self.root), temporary_folder(self.root, key) as folder:
            yield folder
            self._write_record(folder, key, time.monotonic() - started)
            self._publish(folder, key)
        shutil.rmtree(self._scratch(key), ignore_errors=True)

    def obtain(self, key: str, build: Callable[[Path], object], *, settled: bool = False) -> Path:
        """Return the folder of a key, built first when there is none or it is damaged.

        Args:
            key: Key of the stage.
            build: Called with an empty folder, which it fills.
            settled: Whether others have decided by the result, so that in the place of a damaged one only the same is
                taken, byte for byte.

        Returns:
            The finished folder, which must not be changed.

        Raises:
            StoreError: If the disk is full, or a settled result was damaged and comes out different.
        """
        found = self.sound(key)
        if found is None:
            with self.make(key) as folder:
                build(folder)
                if settled and (was := self._lost(key)) and (differs := _differences(folder, was)):
                    raise StoreError(
                        f"stage {key} was damaged, and made again it is another one: {differs}. What was decided by "
                        f"the old one does not hold for it; restore its folder in {self.root} from a backup"
                    )
            found = self.root / key
        return found

    def work(self, key: str) -> Path:
        """Return a scratch folder for checkpoints; it survives a kill and is removed when the stage completes.

        Args:
            key: Key of the stage.

        Returns:
            The folder, with what an earlier attempt left in it.

        Raises:
            StoreError: If the disk is full.
        """
        folder = self._scratch(key)
        with disk_in_words(f"scratch folder of {key}", self.root):
            make_folder(folder)
        return folder

    def _lost(self, key: str) -> Any:
        """Return the digests on record of a damaged result of a key, None when there is none."""
        for place in sorted(self.root.glob(f".damaged-*-{key}")):
            with suppress(OSError, ValueError, AttributeError):
                return json.loads((place / RECORD).read_text(encoding="utf-8")).get("files")
        return None

    def _scratch(self, key: str) -> Path:
        return self.root / "work" / key

    def _write_record(self, folder: Path, key: str, seconds: float) -> None:
        content = {
            "stage": getattr(key, "stage", key.rpartition("-")[0]),
            "inputs": getattr(key, "inputs", None),
            "seconds": round(seconds, 3),
            "finished_at": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
            "files": _marks(folder),
        }
        write_atomically(folder / RECORD, json.dumps(content, indent=1, ensure_ascii=False).encode())

    def _publish(self, folder: Path, key: str) -> None:
        target = self.root / key
        try:
            publish(folder, target)
        except OSError:
            if self.find(key) is not None:  # another process was faster
                return
            if not target.is_dir():
                raise
            # Without a record: a power cut took it, in a version that did not wait for the disk
            _log.warning("stage %s has no record; what is left of it is kept in %s", key, set_aside(target))
            publish(folder, target)


def _marks(folder: Path) -> dict[str, list[Any]]:
    """Return path -> size (bytes) and SHA-256 of all files below a folder but its record."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / RECORD)
    return {path.relative_to(folder).as_posix(): [path.stat().st_size, file_digest(path)] for path in files}


def _stamps(folder: Path) -> list[tuple[str, int, int]]:
    """Return name, size and time of change of all below a folder; whoever writes to a file changes them."""
    found = [(path.name, path.stat()) for path in sorted(folder.rglob("*"))]
    return [(name, facts.st_size, facts.st_ctime_ns) for name, facts in found]


def _differences(folder: Path, marks: Any) -> str:
    """Return which files of a folder are not as its record says, "" when all are."""
    try:
        kept = {str(name): (int(size), str(digest)) for name, (size, digest) in marks.items()}
    except (AttributeError, TypeError, ValueError):
        return f"its record {RECORD} cannot be read"
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {RECORD}
    wrong = [f"{name} is missing" for name in sorted(kept.keys() - found)]
    wrong += [f"{name} was not made by the stage" for name in sorted(found - kept.keys())]
    for name in sorted(kept.keys() & found):
        size, digest = kept[name]
        if folder.joinpath(name).stat().st_size != size:
            wrong.append(f"{name} has {folder.joinpath(name).stat().st_size} bytes instead of {size}")
        elif file_digest(folder / name) != digest:
            wrong.append(f"{name} has changed (SHA-256)")
    return "; ".join(wrong[:5]) + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
