"""Results of stages, stored under their inputs, so that nothing is computed twice, also after a kill."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from esci_tournament.registry.errors import StoreError, UsageError
from esci_tournament.registry.files import canonical_json, digest_of, disk_in_words, temporary_folder, write_atomically

RECORD = "stage.json"

# The version of a stage's code. Raise it when the same inputs give another result, so that stored results of the
# old code are not taken for those of the new; a stage that is not named here has version 1.
CODE_VERSIONS: dict[str, int] = {"load": 2, "validate": 2, "profile": 2, "challenge": 3}

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

    A folder stands under its key only when it is complete: it is made under a temporary name beside it and renamed.

    Args:
        root: The folder of the store; made when the first result is.
        versions: Code version of each stage; default :data:`CODE_VERSIONS`.
    """

    def __init__(self, root: Path, versions: Mapping[str, int] | None = None) -> None:
        self.root = Path(root)
        self._versions = CODE_VERSIONS if versions is None else versions

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
        """Return the finished folder of a key, None when there is none."""
        folder = self.root / key
        return folder if (folder / RECORD).is_file() else None

    def record(self, key: str) -> dict[str, Any]:
        """Return the record of a finished stage.

        Args:
            key: Key of the stage.

        Returns:
            `stage`, `inputs` (None when the key was a plain string), `seconds`, `finished_at` (ISO, UTC).

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

    def obtain(self, key: str, build: Callable[[Path], object]) -> Path:
        """Return the folder of a key, built first when there is none.

        Args:
            key: Key of the stage.
            build: Called with an empty folder, which it fills.

        Returns:
            The finished folder, which must not be changed.

        Raises:
            StoreError: If the disk is full.
        """
        found = self.find(key)
        if found is None:
            with self.make(key) as folder:
                build(folder)
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
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _scratch(self, key: str) -> Path:
        return self.root / "work" / key

    def _write_record(self, folder: Path, key: str, seconds: float) -> None:
        content = {
            "stage": getattr(key, "stage", key.rpartition("-")[0]),
            "inputs": getattr(key, "inputs", None),
            "seconds": round(seconds, 3),
            "finished_at": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
        }
        write_atomically(folder / RECORD, json.dumps(content, indent=1, ensure_ascii=False).encode())

    def _publish(self, folder: Path, key: str) -> None:
        try:
            os.rename(folder, self.root / key)
        except OSError:
            if self.find(key) is None:
                raise
