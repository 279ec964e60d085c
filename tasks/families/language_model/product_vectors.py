"""Product vectors of a bi-encoder, computed ahead and memory-mapped: serving then encodes the query alone."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from esci_tournament.registry.errors import SpecError
from esci_tournament.registry.files import publish, write_atomically
from esci_tournament.tasks.families.seal import seal

_KEYS, _ROWS, _VECTORS, _HEADER = "keys.npy", "rows.npy", "vectors.npy", "header.json"


def text_keys(fields: Mapping[str, Sequence[str]]) -> np.ndarray:
    """Return a key of each product: BLAKE2b of the text that the model reads of it.

    A product whose text has changed has another key: a vector computed ahead no longer describes it.

    Args:
        fields: for each field, the text of each product; the order of the fields counts, their names do not.

    Returns:
        uint64 (n,).

    Example:
        >>> keys = text_keys({"title": ["Desk lamp", "Desk lamp"], "color": ["red", "blue"]})
        >>> len(keys), bool(keys[0] == keys[1])
        (2, False)
    """
    digests = b"".join(
        hashlib.blake2b("\x1f".join(parts).encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for parts in zip(*fields.values(), strict=True)
    )
    return np.frombuffer(digests, dtype="<u8")


@dataclass(frozen=True)
class ProductVectors:
    """Vectors computed ahead.

    Attributes:
        keys: uint64 (n,), ascending :func:`text_keys`.
        rows: int64 (n,), the row of each key in `vectors`.
        vectors: float32 (n, width), memory-mapped.
    """

    keys: np.ndarray
    rows: np.ndarray
    vectors: np.ndarray

    @classmethod
    def write(
        cls, folder: Path, model: str, keys: np.ndarray, width: int, parts: Iterable[np.ndarray]
    ) -> ProductVectors:
        """Write vectors into a folder and return them memory-mapped.

        The header, which names the model, is written last: a folder without it is incomplete.

        Args:
            folder: made if need be; vectors that it holds are replaced.
            model: digest of the network that made the vectors.
            keys: uint64 (n,), see :func:`text_keys`.
            width: length of a vector.
            parts: float32 (rows, width) each, together the vectors in the order of `keys`.

        Returns:
            The vectors.
        """
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _HEADER).unlink(missing_ok=True)
        scratch = folder / f".{_VECTORS}.{os.getpid()}"
        vectors = np.lib.format.open_memmap(scratch, "w+", np.float32, (len(keys), width))
        start = 0
        for part in parts:
            vectors[start : start + len(part)] = part
            start += len(part)
        vectors.flush()
        publish(scratch, folder / _VECTORS)
        rows = np.argsort(keys, kind="stable")
        np.save(folder / _KEYS, keys[rows])
        np.save(folder / _ROWS, rows)
        seal(folder, [folder / name for name in (_KEYS, _ROWS, _VECTORS)])
        write_atomically(folder / _HEADER, json.dumps({"model": model, "products": len(keys)}).encode())
        return cls.open(folder, model)

    @classmethod
    def open(cls, folder: Path, model: str) -> ProductVectors:
        """Memory-map what :meth:`write` wrote.

        Args:
            folder: where :meth:`write` wrote.
            model: digest of the network that is to use the vectors.

        Returns:
            The vectors.

        Raises:
            SpecError: if the folder holds no vectors, or those of another model.
        """
        try:
            header = json.loads((folder / _HEADER).read_text(encoding="utf-8"))
            arrays = [np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in (_KEYS, _ROWS, _VECTORS)]
        except (OSError, ValueError) as error:
            raise SpecError(
                f"{folder} holds no whole set of product vectors ({error}); embed the products again"
            ) from error
        if header.get("model") != model:
            raise SpecError(f"{folder} holds product vectors of another model; embed the products with this one")
        return cls(*arrays)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return where products stand in `vectors`.

        Args:
            keys: uint64 (m,), see :func:`text_keys`.

        Returns:
            int64 (m,), row of each key in `vectors`, -1 for one that is not there.
        """
        if not len(self.keys):
            return np.full(len(keys), -1, dtype=np.int64)
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[place] == keys, self.rows[place], -1)
