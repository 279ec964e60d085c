"""Which language a text is in, by its characters alone: one word often cannot tell, the mix over thousands can."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

UNKNOWN = "unknown"


def languages_of(texts: Iterable[str]) -> np.ndarray:
    """Return the ISO 639 code of the most probable language of each text, object (n,); "unknown" of a blank one."""
    from py3langid import classify  # it reads its model when it is imported

    known: dict[str, str] = {}
    found = []
    for text in texts:
        if text not in known:
            known[text] = classify(text)[0] if text.strip() else UNKNOWN
        found.append(known[text])
    return np.asarray(found, dtype=object)
