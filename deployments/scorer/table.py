"""A table of labels in one memory-mapped file: fixed slots, two possible buckets a key, the longest unused goes.

A slot has 32 bytes: a key of 16, four probabilities of 2, label and flags of 1, when it was last used (2), and a check
of 4 over all of the others but the time. Nothing in the file points anywhere, so a damaged or half-written slot is not
found rather than followed; that is also why processes may read and write at once without a lock.

A key may stand in one of two buckets of eight slots and goes into the emptier one. When both are full, one that stands
there is moved to its other bucket if that has room (Pagh and Rodler 2004, "Cuckoo hashing", one step of it); when none
has, the slot of the two that was not used for the longest time goes.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numba import njit

from esci_tournament.registry.errors import StoreError

SLOT_BYTES, BUCKET_SLOTS, HEADER_BYTES = 32, 8, 4096
MAGIC, FORMAT = 0x1ABE1CAC4E000000, 1
_MAGIC, _FORMAT, _BUCKETS, _CHECK, _SUPERSEDED, _PUTS, _USED, _EVICTED = range(8)
_TICKS = 64  # the clock goes on by one when puts have come to this part of the slots
_SAMPLE, _TOO_MANY = 4096, 0.01  # slots looked at when a table is opened, share of damaged ones that condemns it


class DamagedTable(StoreError):
    """Raised when a file is no table, is cut short, or holds too many damaged slots; the cache makes a new one."""


@dataclass
class Table:
    """An open table. Made by :meth:`create` and :meth:`open`.

    Attributes:
        path: its file. words: uint64, all of it, memory-mapped.
        header: uint64 (512,), and slots: uint64 (buckets * 8, 4), are views of it.
    """

    path: Path
    words: np.memmap
    header: np.ndarray
    slots: np.ndarray

    @classmethod
    def create(cls, path: Path, buckets: int) -> Table:
        """Make an empty table in the place of `path`, all of its room on disk taken at once.

        Raises:
            StoreError: if there is no room.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        size = HEADER_BYTES + buckets * BUCKET_SLOTS * SLOT_BYTES
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            # Without this a full disk would end the process when a page is first written
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(handle, 0, size)
            else:
                os.ftruncate(handle, size)
            start = np.zeros(HEADER_BYTES // 8, dtype=np.uint64)
            start[[_MAGIC, _FORMAT, _BUCKETS]] = MAGIC, FORMAT, buckets
            start[_CHECK] = _header_check(start)
            os.pwrite(handle, start.tobytes(), 0)
            os.replace(name, path)
        except OSError as error:
            Path(name).unlink(missing_ok=True)
            raise StoreError(
                f"label cache {path}: {size / 2**20:,.0f} MiB cannot be had ({error.strerror or error}); make room, or "
                "lower the setting cache_max_mib"
            ) from error
        finally:
            os.close(handle)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> Table:
        """Map the table in a file.

        Raises:
            FileNotFoundError: if there is none.
            DamagedTable: if it is not whole.
        """
        size = path.stat().st_size
        if size < HEADER_BYTES or (size - HEADER_BYTES) % (BUCKET_SLOTS * SLOT_BYTES):
            raise DamagedTable(f"label cache {path} has {size} bytes, which no table has; it is made anew")
        words = np.memmap(path, dtype=np.uint64, mode="r+")
        plain = words.view(np.ndarray)  # what numba takes
        header, slots = plain[: HEADER_BYTES // 8], plain[HEADER_BYTES // 8 :].reshape(-1, 4)
        buckets = len(slots) // BUCKET_SLOTS
        if (
            (int(header[_MAGIC]), int(header[_FORMAT])) != (MAGIC, FORMAT)
            or header[_CHECK] != _header_check(header)
            or int(header[_BUCKETS]) != buckets
        ):
            raise DamagedTable(f"label cache {path} has no header of a table of {buckets} buckets; it is made anew")
        if hasattr(mmap, "MADV_RANDOM"):
            words._mmap.madvise(mmap.MADV_RANDOM)  # type: ignore[attr-defined]
        table = cls(path, words, header, slots)
        filled, damaged = table.sample()
        if damaged > _TOO_MANY * max(filled, 1):
            raise DamagedTable(f"label cache {path}: {damaged} of {filled} slots seen are damaged; it is made anew")
        return table

    @property
    def superseded(self) -> bool:
        """Whether a larger table stands in its place."""
        return bool(self.header[_SUPERSEDED])

    @property
    def buckets(self) -> int:
        return len(self.slots) // BUCKET_SLOTS

    @property
    def used(self) -> int:
        """Slots in use, about: processes that write at once may miscount."""
        return min(int(self.header[_USED]), len(self.slots))

    @property
    def evicted(self) -> int:
        """Entries that had to go since the table was made, about."""
        return int(self.header[_EVICTED])

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return HEADER_BYTES + len(self.slots) * SLOT_BYTES

    def get(self, keys: np.ndarray, entries: np.ndarray) -> tuple[np.ndarray, int]:
        """Write the entries of keys into `entries` and return which are found, bool (n,), and how many.

        Args:
            keys: uint64 (n, 2). entries: uint16 (n, 5), zeros; label and flags, then four probabilities.
        """
        found = np.zeros(len(keys), dtype=np.bool_)
        return found, _get(self.slots, keys, self._now(), found, entries)

    def put(self, keys: np.ndarray, entries: np.ndarray) -> None:
        """Keep entries; the arguments are those of :meth:`get`."""
        added, evicted = _put(self.slots, keys, entries, self._now())
        header = self.header
        header[_PUTS] += np.uint64(len(keys))
        header[_USED] += np.uint64(added)
        header[_EVICTED] += np.uint64(evicted)

    def absorb(self, other: Table) -> None:
        """Take over all entries of another table, the time of their last use included."""
        self.header[_PUTS] = self._puts_at(other._now())
        added, evicted = _absorb(self.slots, other.slots, self._now())
        self.header[_USED] += np.uint64(added)
        self.header[_EVICTED] = other.header[_EVICTED] + np.uint64(evicted)

    def supersede(self) -> None:
        """Tell every process that has this table open that another stands in its place."""
        self.header[_SUPERSEDED] = 1

    def sample(self) -> tuple[int, int]:
        """Return how many of some slots are filled, and how many of these are damaged."""
        step = max(len(self.slots) // _SAMPLE, 1)
        return _inspect(self.slots, step)

    def flush(self) -> None:
        """Write everything to the disk."""
        self.words.flush()

    def _now(self) -> int:
        return (int(self.header[_PUTS]) * _TICKS // max(len(self.slots), 1)) & 0xFFFF

    def _puts_at(self, now: int) -> int:
        return -(-now * len(self.slots) // _TICKS)


def _header_check(header: np.ndarray) -> np.uint64:
    total = 0
    for place in (_MAGIC, _FORMAT, _BUCKETS):
        total = (total * 0x9E3779B97F4A7C15 + int(header[place]) + 1) & (2**64 - 1)
    return np.uint64(total)


@njit(cache=True, nogil=True, inline="always")
def _check(first, second, payload, label):  # pragma: no cover - compiled
    """The upper half of a product mix of all that a slot says; never 0, which stands for an empty slot."""
    state = first * np.uint64(0x9E3779B97F4A7C15) ^ (second + np.uint64(0xBF58476D1CE4E5B9))
    state = (state ^ (state >> np.uint64(29))) * np.uint64(0x94D049BB133111EB) ^ payload
    state = (state ^ (state >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93) + label
    state = (state ^ (state >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
    return (state >> np.uint64(32)) | np.uint64(1)


@njit(cache=True, nogil=True, inline="always")
def _good(slots, place):  # pragma: no cover - compiled
    last = slots[place, 3]
    label = last & np.uint64(0xFFFF)
    return last != 0 and _check(slots[place, 0], slots[place, 1], slots[place, 2], label) == last >> np.uint64(32)


@njit(cache=True, nogil=True)
def _get(slots, keys, now, found, entries):  # pragma: no cover - compiled
    hits = 0
    for row in range(len(keys)):
        first, second = keys[row, 0], keys[row, 1]
        for half in range(2):
            start = _bucket(slots, first, half)
            for place in range(start, start + 8):
                if slots[place, 0] == first and slots[place, 1] == second:
                    value, last = slots[place, 2], slots[place, 3]
                    words = last & np.uint64(0xFFFF)
                    if last != 0 and _check(first, second, value, words) == last >> np.uint64(32):
                        found[row], entries[row, 0] = True, np.uint16(words)
                        for number in range(4):
                            entries[row, number + 1] = np.uint16((value >> np.uint64(16 * number)) & np.uint64(0xFFFF))
                        hits += 1
                        if (last >> np.uint64(16)) & np.uint64(0xFFFF) != np.uint64(now):
                            slots[place, 3] = (last & np.uint64(0xFFFFFFFF0000FFFF)) | (np.uint64(now) << np.uint64(16))
                        break
            if found[row]:
                break
    return hits


@njit(cache=True, nogil=True, inline="always")
def _bucket(slots, first, half):  # pragma: no cover - compiled
    """Return the first slot of one of the two buckets of a key, given its first word."""
    part = first >> np.uint64(32) if half == 0 else first & np.uint64(0xFFFFFFFF)
    return np.int64(((part * np.uint64(len(slots) // 8)) >> np.uint64(32)) * np.uint64(8))


@njit(cache=True, nogil=True)
def _moved_away(slots, first):  # pragma: no cover - compiled
    """Move one entry of a key's two full buckets to its other bucket; return the slot that is free now, -1 for none."""
    for half in range(2):
        start = _bucket(slots, first, half)
        for place in range(start, start + 8):
            other = _bucket(slots, slots[place, 0], 0)
            if other == start:
                other = _bucket(slots, slots[place, 0], 1)
            for target in range(other, other + 8):
                if not _good(slots, target):
                    for word in range(4):
                        slots[target, word] = slots[place, word]
                    return place
    return -1


@njit(cache=True, nogil=True)
def _place_of(slots, first, second, now):  # pragma: no cover - compiled
    """Return where a key goes, and 0 if it stands there, 1 if the slot is free, 2 if something else must go."""
    free, room, oldest, age = -1, 0, -1, -1
    for half in range(2):
        start = _bucket(slots, first, half)
        empty, count = -1, 0
        for place in range(start, start + 8):
            if slots[place, 0] == first and slots[place, 1] == second and slots[place, 3] != 0:
                return place, 0
            if not _good(slots, place):
                empty, count = place, count + 1
            else:
                stamp = np.int64((slots[place, 3] >> np.uint64(16)) & np.uint64(0xFFFF))
                since = (now - stamp) & 0xFFFF
                if since > age:
                    oldest, age = place, since
        if count > room:
            free, room = empty, count
    if room > 0:
        return free, 1
    free = _moved_away(slots, first)
    if free >= 0:
        return free, 1
    return oldest, 2


@njit(cache=True, nogil=True, inline="always")
def _write(slots, place, first, second, value, words, stamp):  # pragma: no cover - compiled
    slots[place, 3] = np.uint64(0)  # whoever reads meanwhile finds an empty slot or a wrong check
    slots[place, 0], slots[place, 1], slots[place, 2] = first, second, value
    check = _check(first, second, value, words)
    slots[place, 3] = words | (np.uint64(stamp) << np.uint64(16)) | (check << np.uint64(32))


@njit(cache=True, nogil=True)
def _put(slots, keys, entries, now):  # pragma: no cover - compiled
    added, evicted = 0, 0
    for row in range(len(keys)):
        place, kind = _place_of(slots, keys[row, 0], keys[row, 1], now)
        value = np.uint64(0)
        for number in range(4):
            value |= np.uint64(entries[row, number + 1]) << np.uint64(16 * number)
        _write(slots, place, keys[row, 0], keys[row, 1], value, np.uint64(entries[row, 0]), now)
        added += kind == 1
        evicted += kind == 2
    return added, evicted


@njit(cache=True, nogil=True)
def _absorb(slots, others, now):  # pragma: no cover - compiled
    added, evicted = 0, 0
    for row in range(len(others)):
        if not _good(others, row):
            continue
        stamp = np.int64((others[row, 3] >> np.uint64(16)) & np.uint64(0xFFFF))
        # The bucket of the same half lies in the same part of the file: both are gone through from front to back
        half = 0 if _bucket(others, others[row, 0], 0) == row - row % 8 else 1
        start, place, kind = _bucket(slots, others[row, 0], half), -1, 1
        for candidate in range(start, start + 8):
            if slots[candidate, 3] == 0:
                place = candidate
                break
        if place < 0:
            place, kind = _place_of(slots, others[row, 0], others[row, 1], now)
        if kind == 2:
            evicted += 1
            other = np.int64((slots[place, 3] >> np.uint64(16)) & np.uint64(0xFFFF))
            if (now - other) & 0xFFFF < (now - stamp) & 0xFFFF:
                continue  # all that stand there were used later
        words = others[row, 3] & np.uint64(0xFFFF)
        _write(slots, place, others[row, 0], others[row, 1], others[row, 2], words, stamp)
        added += kind == 1
    return added, evicted


@njit(cache=True, nogil=True)
def _inspect(slots, step):  # pragma: no cover - compiled
    filled, damaged = 0, 0
    for place in range(0, len(slots), step):
        if slots[place, 3] != 0:
            filled += 1
            damaged += not _good(slots, place)
    return filled, damaged
