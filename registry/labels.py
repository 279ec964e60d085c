"""The four classes of the Shopping Queries Dataset: their letters and names; a class's number is its index."""

from __future__ import annotations

LABELS: tuple[str, ...] = ("E", "S", "C", "I")
LABEL_NAMES: tuple[str, ...] = ("Exact", "Substitute", "Complement", "Irrelevant")
CLASSES = len(LABELS)
