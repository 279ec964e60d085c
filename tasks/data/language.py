"""Tell which language each text is in; a single word is often misjudged, so read the mix over many texts."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

UNKNOWN = "unknown"


def languages_of(texts: Iterable[str]) -> np.ndarray:
    """Return the most probable language of each text, by py3langid.

    Args:
        texts: The texts; each distinct one is classified once.

    Returns:
        object (n,) of ISO 639-1 codes, :data:`UNKNOWN` for a blank text.
    """
    from py3langid import classify  # it reads its model when it is imported

    known: dict[str, str] = {}
    found = []
    for text in texts:
        if text not in known:
            known[text] = classify(text)[0] if text.strip() else UNKNOWN
        found.append(known[text])
    return np.asarray(found, dtype=object)
