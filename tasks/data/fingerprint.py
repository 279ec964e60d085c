"""Compute the data version: a hash of what the tables of a folder hold, however their files store it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class ColumnFingerprint:
    """SHA-256 of one column's values in row order, the same however the rows are cut into batches.

    A text column is hashed as two streams, the lengths (-1 for a missing value) and the bytes, so that neither batch
    borders nor the way Arrow stores strings enter the hash.

    Example:
        >>> whole, cut = ColumnFingerprint(), ColumnFingerprint()
        >>> whole.update(pa.array([1, 2, 3]))
        >>> cut.update(pa.array([1, 2]))
        >>> cut.update(pa.array([3]))
        >>> whole.hexdigest() == cut.hexdigest()
        True
    """

    def __init__(self) -> None:
        self._lengths = hashlib.sha256()
        self._values = hashlib.sha256()

    def update(self, array: pa.Array) -> None:
        """Add a batch.

        Args:
            array: large_string, int64, timestamp[us] or double (n,), missing values allowed in all of them.
        """
        if pa.types.is_large_string(array.type):
            lengths = pc.fill_null(pc.binary_length(array), -1)
            self._lengths.update(np.ascontiguousarray(lengths.to_numpy(zero_copy_only=False), "<i8").data)
            self._values.update(_bytes_of(pc.fill_null(array, "")))
            return
        missing = pc.cast(pc.is_null(array), pa.int8())
        if pa.types.is_floating(array.type):  # by their bits
            array = pa.array(pc.fill_null(array, 0.0).to_numpy(zero_copy_only=False).astype("<f8").view("<i8"))
        integers = pc.fill_null(pc.cast(array, pa.int64()), 0)
        self._lengths.update(np.ascontiguousarray(missing.to_numpy(zero_copy_only=False), "<i1").data)
        self._values.update(np.ascontiguousarray(integers.to_numpy(zero_copy_only=False), "<i8").data)

    def hexdigest(self) -> str:
        """Return the hash of all batches so far, 64 hex digits; more batches may follow."""
        return hashlib.sha256(self._lengths.digest() + self._values.digest()).hexdigest()


def data_version(files: Mapping[str, Mapping[str, str]], kept: Mapping[str, np.ndarray] | None = None) -> str:
    """Return the SHA-256 of a folder's content, 64 hex digits.

    Args:
        files: File name -> column name -> the column's :class:`ColumnFingerprint` in hex.
        kept: File name -> bool (rows,), for the files of which settings, not the content alone, left rows out.

    Returns:
        The hash; the order of files and columns does not matter.
    """
    total = hashlib.sha256(b"esci data version 1")
    for name in sorted(files):
        for column in sorted(files[name]):
            total.update(f"\x1e{name}\x1f{column}\x1f{files[name][column]}".encode())
    for name, mask in sorted((kept or {}).items()):
        total.update(f"\x1ekept of {name}\x1f{len(mask)}\x1f".encode() + np.packbits(mask).tobytes())
    return total.hexdigest()


def _bytes_of(array: pa.Array) -> memoryview:
    """Return the bytes of all values of a large_string array without missing values, one after the other."""
    _, offsets_buffer, data = array.buffers()
    if len(array) == 0 or data is None:
        return memoryview(b"")
    offsets = np.frombuffer(offsets_buffer, "<i8")[array.offset : array.offset + len(array) + 1]
    return memoryview(data)[int(offsets[0]) : int(offsets[-1])]
