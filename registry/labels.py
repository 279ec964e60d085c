"""The four classes of the Shopping Queries Dataset: their letters, names, number and order, for everybody."""

from __future__ import annotations

LABELS: tuple[str, ...] = ("E", "S", "C", "I")
LABEL_NAMES: tuple[str, ...] = ("Exact", "Substitute", "Complement", "Irrelevant")
CLASSES = len(LABELS)
