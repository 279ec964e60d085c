"""The label cache in one LMDB file, in two generations, so that the entries unused for longest are dropped when full.

LMDB finds a key in a B-tree that is mapped into memory. Several processes may read and write at once, no reader waits
for a writer, and a process that is killed leaves the file as it was before its last write. LMDB itself drops nothing
when a file is full. So entries are put into the newer of two tables; when that one has its share of the room, the older
one is emptied and becomes the newer one. An entry that is found only in the older table is copied with the next write.
"""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from zlib import crc32

import lmdb
import numpy as np
from filelock import FileLock

from esci_tournament.deployments.scorer.cache import ENTRY, KEY_BYTES, CacheStats
from esci_tournament.registry.errors import StoreError, UsageError
from esci_tournament.registry.files import publish

_log = logging.getLogger("scorer")

FILE, LOCK = "labels.lmdb", "labels.lock"
_OLD_FILES = ("labels.bin", "labels.bin.next")  # caches in a format that is no longer read; they are removed
_FORM = b"labels 2"  # version of the format of keys and entries
_TABLES = (b"first", b"second")
_LEAST_BYTES = 2**20
_SHARE = 0.4  # of the file's pages that a table takes; the rest is for pages that a write replaces
_MOST_AT_ONCE = 2000  # entries of a write
_MOST_AGAIN = 100_000  # entries of the older table that wait to be copied
_CHECK_BYTES = 4
_PAUSES_S = (0.001, 0.01, 0.1, 0.5)
_DAMAGE = (  # what LMDB raises when a page is not what it should be
    lmdb.BadTxnError,
    lmdb.CorruptedError,
    lmdb.CursorFullError,
    lmdb.IncompatibleError,
    lmdb.InvalidError,
    lmdb.PageFullError,
    lmdb.PageNotFoundError,
    lmdb.PanicError,
    lmdb.VersionMismatchError,
)

Item = tuple[bytes, bytes]


class DamagedFile(StoreError):
    """Raised when a file is not a complete label cache; the cache then makes a new one."""


class Store:
    """An open file of keys and values, in two generations.

    Args:
        path: the file; LMDB keeps its locks in another one beside it.
        limit: bytes that the file may take.

    Attributes:
        evicted: entries that this object has dropped to make room.
        page_bytes: size of a page of the file, bytes.

    Raises:
        DamagedFile: if the file is something else, is cut short, or was written when the machine went down.
        lmdb.Error: if it cannot be opened or written.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self.path, self.evicted = path, 0
        existed = path.exists()
        self._env = lmdb.open(
            str(path), map_size=limit, subdir=False, max_dbs=len(_TABLES), sync=False, metasync=False, readahead=False
        )
        try:
            self.page_bytes = int(self._env.stat()["psize"])
            # Checked before anything is read: reading a page beyond the file's end kills the process (SIGBUS)
            if self.size > path.stat().st_size:
                raise DamagedFile("it is cut short")
            with self._env.begin(write=True) as transaction:
                if not existed:
                    transaction.put(b"form", _FORM)
                if transaction.get(b"form") != _FORM:
                    raise DamagedFile("it is no label cache of this form")
                if transaction.get(b"written in", _BOOT) != _BOOT:
                    raise DamagedFile("it was being written when the machine went down")
                self._tables = [self._env.open_db(name, transaction) for name in _TABLES]
        except BaseException:
            self._env.close()
            raise
        status = path.stat()
        self._file = status.st_dev, status.st_ino
        self._env.reader_check()  # frees the pages that readers held which were killed
        self.limit_to(limit)

    def limit_to(self, size: int) -> None:
        """Let the file take `size` bytes and no more."""
        pages = size // self.page_bytes
        self._full, self._at_once = int(_SHARE * pages), min(max(pages // 32, 8), _MOST_AT_ONCE)

    @property
    def size(self) -> int:
        """Size of the pages in use, bytes."""
        return (int(self._env.info()["last_pgno"]) + 1) * self.page_bytes

    @property
    def entries(self) -> int:
        """Number of entries in both tables; those that were copied count twice."""
        with self._env.begin() as transaction:
            return sum(int(transaction.stat(table)["entries"]) for table in self._tables)

    @property
    def is_in_place(self) -> bool:
        """Whether the open file is still the one at its path, and not one that another process has replaced."""
        with suppress(OSError):
            status = self.path.stat()
            return self._file == (status.st_dev, status.st_ino)
        return False

    def get(self, names: Sequence[bytes]) -> tuple[list[bytes | None], list[int]]:
        """Look up keys.

        Args:
            names: n keys of 16 bytes.

        Returns:
            The value of each key, None where there is none, and the positions of the keys found in the older table
            only.

        Raises:
            lmdb.Error: if the file is damaged or closed.
        """
        with self._env.begin() as transaction:
            newer, older = self._in_order(transaction)
            get, found_late = transaction.get, []
            values = [get(name, None, newer) for name in names]
            for place, value in enumerate(values):
                if value is None and (late := get(names[place], None, older)) is not None:
                    values[place] = late
                    found_late.append(place)
        return values, found_late

    def put(self, items: Iterable[Item], overwrite: bool = True) -> None:
        """Keep values under their keys.

        Args:
            items: keys and values.
            overwrite: whether they take the place of values that the newer table has.

        Raises:
            lmdb.MapFullError: if the file is full and stays so for about 0.6 s.
            lmdb.Error: if the disk is full, or the file is damaged.
        """
        left = iter(items)
        while part := list(islice(left, self._at_once)):
            part.sort()  # neighbours in the tree are written together
            for pause in (*_PAUSES_S, None):
                try:
                    self._put(part, overwrite)
                    break
                except lmdb.MapFullError:  # replaced pages become free when no reader uses them any more
                    if pause is None:
                        raise
                    self._env.reader_check()
                    time.sleep(pause)

    def _put(self, part: list[Item], overwrite: bool) -> None:
        with self._env.begin(write=True) as transaction:
            newer = self._in_order(transaction)[0]
            used = transaction.stat(newer)
            if used["branch_pages"] + used["leaf_pages"] >= self._full:
                newer = self._turned(transaction)
            transaction.put(b"written in", _BOOT)
            transaction.cursor(newer).putmulti(part, overwrite=overwrite)

    def turn(self) -> None:
        """Empty the older table and make it the newer one."""
        with self._env.begin(write=True) as transaction:
            self._turned(transaction)

    def items(self) -> Iterator[Item]:
        """Yield keys and values, those of the older table first."""
        with self._env.begin() as transaction:
            for table in reversed(self._in_order(transaction)):
                yield from transaction.cursor(table)

    def close(self) -> None:
        """Write everything to the disk, mark the file as complete, and close it."""
        with suppress(lmdb.Error):  # a file that was damaged meanwhile is noticed when it is opened next
            with self._env.begin(write=True) as transaction:  # keeps other processes from writing meanwhile
                self._env.sync(True)
                transaction.delete(b"written in")
            self._env.sync(True)
        self._env.close()

    def _in_order(self, transaction: lmdb.Transaction) -> tuple[lmdb._Database, lmdb._Database]:
        """Return the newer and the older table."""
        first, second = self._tables
        return (second, first) if transaction.get(b"newer") == _TABLES[1] else (first, second)

    def _turned(self, transaction: lmdb.Transaction) -> lmdb._Database:
        older = self._in_order(transaction)[1]
        self.evicted += int(transaction.stat(older)["entries"])
        transaction.drop(older, delete=False)
        transaction.put(b"newer", _TABLES[self._tables.index(older)])
        return older


class FileCache:
    """A label cache in one file, which several processes of a machine may share.

    A damaged file is noticed when it is opened or when it is used, and replaced by an empty one; a damaged entry is not
    found. When the disk is full the file stays as large as it is.

    Args:
        folder: folder of the file, made if missing.
        max_mib: largest size of the file, MiB.

    Raises:
        StoreError: if there is no room on the disk.
        UsageError: if the limit is too low.
    """

    remote = False

    def __init__(self, folder: Path, max_mib: float) -> None:
        self._path, self._lock = folder / FILE, FileLock(folder / LOCK)
        self._limit = int(max_mib * 2**20)
        if self._limit < _LEAST_BYTES:
            raise UsageError(f"cache_max_mib is {max_mib}, too little for a label cache; set 4 or above")
        self._hits = self._misses = self._rebuilt = self._failures = 0
        self._evicted = 0  # from files that are gone
        self._again: dict[bytes, bytes] = {}  # found in the older table, copied with the next write
        self._writing, self._closed = threading.Lock(), False
        folder.mkdir(parents=True, exist_ok=True)
        for name in _OLD_FILES:
            (folder / name).unlink(missing_ok=True)
        self._store = self._open()

    def get(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Look up pairs, as described at `LabelCache.get`; in a damaged file nothing is found."""
        found, entries = np.zeros(len(keys), dtype=np.bool_), np.zeros(len(keys), dtype=ENTRY)
        names, store = _names(keys), self._store
        try:
            values, late = store.get(names)
        except _DAMAGE as error:
            self._renew(store, error)
            values, late = [None] * len(names), []
        except lmdb.Error:
            if not self._closed:
                raise
            values, late = [None] * len(names), []
        good = [row for row, value in enumerate(values) if value is not None and _is_whole(names[row], value)]
        if good:
            found[good] = True
            content = b"".join([values[row][:-_CHECK_BYTES] for row in good])  # type: ignore[index]
            entries[good] = np.frombuffer(content, dtype=ENTRY)
        for row in late if len(self._again) < _MOST_AGAIN else ():
            self._again[names[row]] = values[row]  # type: ignore[assignment]
        self._hits += len(good)
        self._misses += len(names) - len(good)
        return found, entries

    def put(self, keys: np.ndarray, entries: np.ndarray) -> None:
        """Write entries, as described at `LabelCache.put`; a write that fails is counted, not raised."""
        if not len(keys):
            return
        names, content = _names(keys), _pieces(entries, ENTRY.itemsize)
        items = [(name, value + _check(name, value)) for name, value in zip(names, content, strict=True)]
        with self._writing:
            if self._closed:  # a champion may still be made ready while the scorer stops
                return
            store = self._store
            again, self._again = self._again, {}
            try:
                store.put(list(again.items()), overwrite=False)  # a list: a look-up under way may add to it yet
                store.put(items)
            except _DAMAGE as error:
                self._renew(store, error)
            except lmdb.Error as error:
                self._failures += 1
                if not isinstance(error, lmdb.MapFullError):
                    self._stay(store, error)

    def stats(self) -> CacheStats:
        """Return the figures of this process, and the size of the file."""
        store = self._store
        entries: int | None = None
        size: int | None = None
        try:
            entries, size = store.entries, store.size
        except _DAMAGE as error:
            self._renew(store, error)
            store = self._store
            entries, size = 0, store.size
        except lmdb.Error:
            if not self._closed:
                raise
        evicted, is_open = self._evicted + store.evicted, not self._closed
        return CacheStats(self._hits, self._misses, entries, size, evicted, self._rebuilt, self._failures, is_open)

    def close(self) -> None:
        """Close the file; afterwards nothing is found and nothing is kept."""
        with self._writing:
            self._closed = True
            self._store.close()

    def _open(self) -> Store:
        with self._lock:
            try:
                try:
                    store = Store(self._path, self._limit)
                except (DamagedFile, *_DAMAGE) as error:
                    store = self._made_anew(error)
                return self._shrunk(store) if store.size > self._limit else store
            except (lmdb.Error, OSError) as error:
                raise StoreError(
                    f"label cache {self._path} cannot be opened ({error}); make room, or lower the setting "
                    "cache_max_mib"
                ) from error

    def _made_anew(self, error: Exception) -> Store:
        _log.warning("label cache %s is made anew: %s", self._path, error)
        self._rebuilt += 1
        _remove(self._path)
        return Store(self._path, self._limit)

    def _shrunk(self, store: Store) -> Store:
        """Return a smaller file with the newest entries of one that is too large, in the same place."""
        path = self._path.with_name(f"{FILE}.next")
        _remove(path)
        smaller = Store(path, self._limit)
        smaller.put(store.items())
        smaller.close()
        store.close()
        _remove(self._path)
        publish(path, self._path)
        _remove(path)
        return Store(self._path, self._limit)

    def _renew(self, store: Store, error: Exception) -> None:
        """Go on with a new file in the place of a damaged one; another process that uses it notices on its own."""
        with self._lock:
            if self._store is not store:
                return  # another thread was here
            self._evicted += store.evicted
            self._store = self._made_anew(error) if store.is_in_place else Store(self._path, self._limit)

    def _stay(self, store: Store, error: Exception) -> None:
        """Let the file stay as large as it is: there is no room for a larger one."""
        size = store.size
        _log.warning("the label cache stays at %.0f MiB: %s", size / 2**20, error)
        store.limit_to(size)
        with suppress(lmdb.Error):  # no room for this either: nothing is kept until there is some
            store.turn()


def _read_boot() -> bytes:
    """Return a number that the machine has until it is started again, b"" where there is none."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.check_output(["sysctl", "-n", "kern.bootsessionuuid"], timeout=5).strip()
    return b""


_BOOT = _read_boot()


def _remove(path: Path) -> None:
    for one in (path, Path(f"{path}-lock")):
        one.unlink(missing_ok=True)


def _names(keys: np.ndarray) -> list[bytes]:
    """Return keys, uint8 (n, 16), as n strings of bytes."""
    return _pieces(keys, KEY_BYTES)


def _pieces(rows: np.ndarray, size: int) -> list[bytes]:
    content = np.ascontiguousarray(rows).tobytes()
    return [content[start : start + size] for start in range(0, len(content), size)]


def _check(name: bytes, content: bytes) -> bytes:
    return crc32(content, crc32(name)).to_bytes(_CHECK_BYTES, "little")


def _is_whole(name: bytes, value: bytes) -> bool:
    return len(value) == ENTRY.itemsize + _CHECK_BYTES and value[-_CHECK_BYTES:] == _check(name, value[:-_CHECK_BYTES])
