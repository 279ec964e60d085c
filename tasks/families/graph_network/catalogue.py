"""The products a model knows, computed ahead: found again by what they are, not by where they stand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np


def identities(product_ids: Iterable[str], locales: Iterable[str], texts: Iterable[str]) -> np.ndarray:
    """Return what a product is, uint64 (n,): BLAKE2b of id, locale and the text that the model reads.

    A product whose text has changed is another product: what was computed ahead no longer describes it.
    """
    digests = b"".join(
        hashlib.blake2b("\x1f".join(parts).encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for parts in zip(product_ids, locales, texts, strict=True)
    )
    return np.frombuffer(digests, dtype="<u8")


@dataclass(frozen=True)
class EmbeddingCatalogue:
    """Products computed ahead.

    Attributes:
        keys: uint64 (n,), ascending :func:`identities`.
        rows: int32 (n,), row of each key in the three tables.
        states: float16 (n, hidden_size), after message passing.
        texts: float16 (n, text_dimensions), own text.
        echoes: float16 (n, text_dimensions), mean text of the neighbours.
    """

    keys: np.ndarray
    rows: np.ndarray
    states: np.ndarray
    texts: np.ndarray
    echoes: np.ndarray

    @classmethod
    def make(
        cls, identity: np.ndarray, states: np.ndarray, texts: np.ndarray, echoes: np.ndarray
    ) -> EmbeddingCatalogue:
        """Sort the products by identity; row i of every argument is the same product."""
        rows = np.argsort(identity, kind="stable").astype(np.int32)
        return cls(identity[rows], rows, states, texts, echoes)

    @classmethod
    def empty(cls, state_dimensions: int, text_dimensions: int) -> EmbeddingCatalogue:
        """Return a catalogue without a product: every product is then computed from its text."""
        tables = [np.zeros((0, width), np.float16) for width in (state_dimensions, text_dimensions, text_dimensions)]
        return cls(np.zeros(0, np.uint64), np.zeros(0, np.int32), *tables)

    def only(self, rows: np.ndarray) -> EmbeddingCatalogue:
        """Return the catalogue of some rows of the tables alone, int64 (m,), copied into memory."""
        return self.make(self.identity[rows], *(np.asarray(table[rows]) for table in self._tables))

    @property
    def _tables(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.states, self.texts, self.echoes

    @property
    def identity(self) -> np.ndarray:
        """What stands in each row of the tables, uint64 (n,); see :func:`identities`."""
        result = np.empty(len(self.keys), dtype=np.uint64)
        result[self.rows] = self.keys
        return result

    def find(self, identity: np.ndarray) -> np.ndarray:
        """Return the row of each product in the tables, int64 (n,), -1 for one that is not known."""
        keys, rows = np.asarray(self.keys), np.asarray(self.rows)  # plain arrays over the maps are faster to access
        if not len(keys):
            return np.full(len(identity), -1, dtype=np.int64)
        place = np.minimum(np.searchsorted(keys, identity), len(keys) - 1)
        return np.where(keys[place] == identity, rows[place].astype(np.int64), -1)

    def save(self, folder: Path) -> None:
        """Write one .npy file an array."""
        for name in self.__dataclass_fields__:
            np.save(folder / f"catalogue_{name}.npy", getattr(self, name))

    @classmethod
    def load(cls, folder: Path) -> EmbeddingCatalogue:
        """Memory-map what :meth:`save` wrote."""
        return cls(
            **{
                name: np.load(folder / f"catalogue_{name}.npy", mmap_mode="r", allow_pickle=False)
                for name in cls.__dataclass_fields__
            }
        )
