"""Embeddings of the products that a model has computed ahead, looked up by a hash of id, locale and text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from esci_tournament.tasks.families.product_keys import find


@dataclass(frozen=True)
class EmbeddingCatalogue:
    """Products computed ahead.

    Attributes:
        keys: uint64 (n,), ascending :func:`esci_tournament.tasks.families.product_keys.identities`.
        rows: int32 (n,), row of each key in the three tables.
        states: float16 (n, hidden_size), after message passing.
        texts: float16 (n, text_dimensions), the product's own text vector.
        echoes: float16 (n, text_dimensions), mean text vector of the neighbours.
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
        """Return a catalogue of unsorted products; row i of every argument is the same product.

        Args:
            identity: uint64 (n,), see :func:`esci_tournament.tasks.families.product_keys.identities`.
            states: float16 (n, hidden_size).
            texts: float16 (n, text_dimensions).
            echoes: float16 (n, text_dimensions).

        Returns:
            A catalogue with sorted keys over the same tables, which are not copied.
        """
        rows = np.argsort(identity, kind="stable").astype(np.int32)
        return cls(identity[rows], rows, states, texts, echoes)

    @classmethod
    def empty(cls, state_dimensions: int, text_dimensions: int) -> EmbeddingCatalogue:
        """Return a catalogue without a product: every product is then computed from its text."""
        tables = [np.zeros((0, width), np.float16) for width in (state_dimensions, text_dimensions, text_dimensions)]
        return cls(np.zeros(0, np.uint64), np.zeros(0, np.int32), *tables)

    def only(self, rows: np.ndarray) -> EmbeddingCatalogue:
        """Return a catalogue of some products, copied into memory.

        Args:
            rows: int64 (m,), rows of the tables to keep.

        Returns:
            A catalogue whose row i is row `rows[i]` of this one.
        """
        return self.make(self.identity[rows], *(np.asarray(table[rows]) for table in self._tables))

    @property
    def _tables(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.states, self.texts, self.echoes

    @property
    def identity(self) -> np.ndarray:
        """The key of each row of the tables, uint64 (n,); see `product_keys.py`."""
        result = np.empty(len(self.keys), dtype=np.uint64)
        result[self.rows] = self.keys
        return result

    def find(self, identity: np.ndarray) -> np.ndarray:
        """Return where products stand in the tables.

        Args:
            identity: uint64 (m,), see :func:`esci_tournament.tasks.families.product_keys.identities`.

        Returns:
            int64 (m,), row of each product in the tables, -1 for one that is not there.
        """
        keys, rows = np.asarray(self.keys), np.asarray(self.rows)  # plain arrays over the maps are faster to access
        place = find(keys, identity)
        found = np.full(len(identity), -1, dtype=np.int64)
        found[place >= 0] = rows[place[place >= 0]]
        return found

    def save(self, folder: Path) -> None:
        """Write each array to `catalogue_<name>.npy` in an existing folder."""
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
