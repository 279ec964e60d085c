"""What settings say of how data files are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from esci_tournament.registry.labels import LABELS, class_of
from esci_tournament.registry.settings import Settings
from esci_tournament.tasks.data.columns import distinct

NUMBERED_LABELS = (
    'say it in tournament.toml, such as data_labels = { "3" = "E", "2" = "S", "1" = "C", "0" = "I" } '
    "(TOURNAMENT_DATA_LABELS), if that is what they mean"
)


@dataclass(frozen=True)
class Reading:
    """How files are read.

    Attributes:
        extra_columns: What becomes of columns that are not known: "refuse" or "ignore", or the names of those that are
            ignored while others are refused.
        labels: What labels other than letters and words mean: label as text -> letter, such as {"3": "E"}.
    """

    extra_columns: Literal["refuse", "ignore"] | tuple[str, ...] = "refuse"
    labels: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings) -> Reading:
        """Return what settings say: `data_extra_columns` and `data_labels`."""
        return cls(settings.data_extra_columns, settings.data_labels)

    def refused(self, columns: Sequence[str]) -> list[str]:
        """Return which of some unknown columns are refused.

        Example:
            >>> Reading(("price",)).refused(["price", "stock"])
            ['stock']
        """
        if self.extra_columns == "ignore":
            return []
        return [name for name in columns if self.extra_columns == "refuse" or name not in self.extra_columns]

    def letters(self, array: pa.Array, declared: Mapping[str, str] | None = None) -> pa.Array:
        """Return labels as letters.

        Args:
            array: Text or numbers (n,).
            declared: What the file itself says that its labels mean: label as text -> name of a class.

        Returns:
            large_string (n,): letters for letters and words of any case and for what `labels` names, which goes
            before; what means no class, and what is missing, stays.

        Example:
            >>> Reading(labels={"1": "E", "0.1": "S"}).letters(pa.array([1.0, 0.1, 7.0])).to_pylist()
            ['E', 'S', '7']
            >>> Reading().letters(pa.array(["exact", "c", "X", None])).to_pylist()
            ['E', 'C', 'X', None]
        """
        said = {**(declared or {}), **self.labels}
        numbers = {number: meant for text, meant in said.items() if (number := _number(text)) is not None}
        meaning: dict[object, str] = {}
        for value in _values(array):
            text = f"{value:g}" if isinstance(value, float) else str(value)
            meant = said.get(text, text)
            if meant == text and (number := _number(text)) is not None:
                meant = numbers.get(number, text)
            place = class_of(meant)
            meaning[value] = meant if place is None else LABELS[place]
        return distinct(array, meaning)


def _values(array: pa.Array) -> list[object]:
    return [value for value in pc.unique(array).to_pylist() if value is not None]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
