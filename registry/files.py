"""Small helpers on files: canonical JSON, digests, durable writes, and a clear error for a full disk.

What is written here survives a power cut. A file system may keep a rename and lose the bytes of what was renamed, so
:func:`publish` syncs the content before, and the folders whose entries change after. Nobody else renames anything; a
test checks it.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from esci_tournament.registry.errors import StoreError, UsageError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
_FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)
_rooted: set[Path] = set()  # folders whose names, and those of all folders above, this process has synced
# Libraries written in other languages report a full disk by text alone.
_FULL_WORDS = ("no space left on device", "disk quota exceeded", "database or disk is full")


def canonical_json(value: Any) -> str:
    """Return the one JSON text of `value`: sorted keys, no white space, numpy scalars as numbers.

    Args:
        value: Text, numbers, booleans, None, and lists and mappings of them.

    Returns:
        The text; equal values give equal text.

    Raises:
        UsageError: If `value` holds NaN or infinity, or something that is not JSON, such as a path.

    Example:
        >>> canonical_json({"seed": 0, "folds": [1, 2.5]})
        '{"folds":[1,2.5],"seed":0}'
    """
    try:
        return json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_plain
        )
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"no canonical JSON for {value!r}: {error}; pass text, numbers, lists and mappings only, "
            "and a content digest in place of a file"
        ) from error


def digest_of(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON of a value.

    Args:
        value: As :func:`canonical_json` takes it.

    Returns:
        64 hexadecimal digits.

    Raises:
        UsageError: If `value` has no canonical JSON.

    Example:
        >>> digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
        True
    """
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, 64 hexadecimal digits; the file is read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_digest(folder: Path) -> str:
    """Return a SHA-256 over the names and bytes of all files below a folder; their times do not count.

    Args:
        folder: The folder; one without files has a digest too.

    Returns:
        64 hexadecimal digits.
    """
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            total.update(f"{path.relative_to(folder).as_posix()}\0{file_digest(path)}\n".encode())
    return total.hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` under a temporary name and publish it, so that `path` is whole or absent, after a power cut too.

    Args:
        path: The file; it is replaced when it is there, and its folder is made when it is missing.
        content: All of its bytes.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(content)
        publish(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def publish(made: Path, target: Path) -> None:
    """Give a finished file or folder its final name, in one rename that survives a power cut.

    All bytes and all names below `made` are on the disk before the rename, and the rename itself is when this returns.
    At any other moment `target` is what it was before, or all of `made`.

    Args:
        made: A file, or a folder with all that is in it, on the same disk as `target`.
        target: Its name from now on. A file replaces a file and an empty folder a folder; the folder that it is in is
            made when it is missing.

    Raises:
        OSError: If the disk is full or fails, or `target` is a folder with something in it.
    """
    make_folder(target.parent)
    _sync_all(made)
    os.rename(made, target)
    _sync_folder(target.parent)
    if made.parent != target.parent:
        _sync_folder(made.parent)


def sync(path: Path) -> None:
    """Have the disk keep a file or folder with all that is in it, and its name and those of the folders above.

    Args:
        path: What somebody else has written.
    """
    _sync_all(path)
    make_folder(path.parent)
    _sync_folder(path.parent)


def publish_first(made: Path, target: Path) -> bool:
    """Give a finished file its final name as :func:`publish` does, unless another process was faster.

    Args:
        made: A file on the same disk as `target`; its own name is removed.
        target: Its name from now on.

    Returns:
        Whether `target` is `made`; False when there was a file of that name, which stays as it is.
    """
    _sync_all(made)
    try:
        os.link(made, target)
        _sync_folder(target.parent)
    except FileExistsError:
        return False
    finally:
        made.unlink()
    return True


def set_aside(path: Path) -> Path:
    """Rename a damaged file or folder, so that it is not used again and somebody can look at it.

    Args:
        path: What is damaged.

    Returns:
        Its new place beside the old one, `.damaged-<random>-<name>`.

    Raises:
        OSError: If it cannot be renamed.
    """
    place = path.with_name(f".damaged-{uuid.uuid4().hex[:8]}-{path.name}")
    os.rename(path, place)
    _sync_folder(path.parent)
    return place


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that their names survive a power cut; one that is there stays as it is.

    Args:
        folder: The folder.
    """
    folder = folder.absolute()
    if folder in _rooted and folder.is_dir():
        return
    if folder.parent != folder:
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        # One that is there too: whoever made it may not have waited for the disk
        with suppress(PermissionError):  # a folder of the system's, whose names this process may not list
            _sync_folder(folder.parent)
    _rooted.add(folder)


def make_home(home: Path) -> None:
    """Make the folder that everything is written to, unless it is there, and see that it can be written.

    Args:
        home: The folder.

    Raises:
        StoreError: If it cannot be made or written, such as on a disk that is mounted read only.
    """
    try:
        make_folder(home)
        reason = "" if os.access(home, os.W_OK | os.X_OK) else "it is read only for this user"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise StoreError(
            f"home {home} cannot be written: {reason}; choose another folder with --home or TOURNAMENT_HOME"
        )


def _sync_all(path: Path) -> None:
    """Have the disk keep all bytes and names of a file or folder; links are names, and are not followed."""
    if path.is_symlink():
        return
    if path.is_dir():
        for inner in path.iterdir():
            _sync_all(inner)
        _sync_folder(path)
    elif path.is_file():
        with path.open("rb") as stream:
            _sync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _sync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:  # some network file systems keep names at once and cannot be told to
            raise
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    if _FULL_SYNC is not None:  # macOS, where fsync does not reach beyond the drive's own memory
        try:
            fcntl.fcntl(descriptor, _FULL_SYNC)
            return
        except OSError:  # a file system that knows fsync only
            pass
    os.fsync(descriptor)


@contextmanager
def temporary_folder(parent: Path, label: str) -> Iterator[Path]:
    """Yield an empty folder in `parent` that is removed after the block, unless the block has renamed it.

    Folders that killed processes of this machine left under the same label are removed first.

    Args:
        parent: Where the folder is made; made itself when it is missing.
        label: Part of the folder's name, `.making-<label>-<digest of the host>-<process id>-<random>`.

    Yields:
        The folder.
    """
    make_folder(parent)
    prefix = f".making-{label}-{_host_mark()}-"
    for abandoned in parent.glob(f"{glob.escape(prefix)}*"):  # a label may hold what patterns are made of
        owner = abandoned.name.removeprefix(prefix).split("-")[0]
        if owner.isdigit() and not _is_alive(int(owner)):
            shutil.rmtree(abandoned, ignore_errors=True)
    folder = parent / f"{prefix}{os.getpid()}-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def folder_name(id: str) -> str:
    """Return the name of a folder for something that people have named, such as a candidate "minilm/3".

    Args:
        id: Any text.

    Returns:
        ASCII letters, digits, `.`, `_` and `-` only, at most 100. Names in lower case that hold nothing else keep it,
        with - for /; others get a part of their digest, so that two names never share a folder.

    Example:
        >>> folder_name("minilm/3"), folder_name("ESCI Cross-Encoder v2/1")
        ('minilm-3', 'ESCI-Cross-Encoder-v2-1-ff76a1bfaec5')
    """
    flat = id.replace("/", "-")
    if re.fullmatch("[a-z0-9][a-z0-9._-]{0,99}", flat):
        return flat
    words = re.sub("[^A-Za-z0-9._-]+", "-", flat).strip("-.")[:60]
    return f"{words}-{hashlib.sha256(id.encode()).hexdigest()[:12]}".lstrip("-")


def _host_mark() -> str:
    """Return letters that stand for this machine: the names themselves may begin with one another."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:12]


def is_disk_full(error: BaseException) -> bool:
    """Return whether `error`, or what caused it, says that the disk is full or a quota is exceeded."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _FULL:
            return True
        if any(words in str(seen).lower() for words in _FULL_WORDS):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


@contextmanager
def disk_in_words(doing: str, place: Path) -> Iterator[None]:
    """Turn a full disk met inside the block into a StoreError; other errors pass.

    Args:
        doing: What is written, as the message begins.
        place: Folder on the disk that the message names.

    Yields:
        Nothing.

    Raises:
        StoreError: If the block raised an error that says that the disk is full.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, StoreError) and is_disk_full(error):
            raise StoreError(
                f"{doing}: the disk of {place} is full; nothing half-written was kept, "
                "make room and run the same command again"
            ) from error
        raise


def _plain(value: Any) -> Any:
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a numpy scalar
        return value.item()
    raise TypeError(f"a {type(value).__name__} has no canonical form")


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
