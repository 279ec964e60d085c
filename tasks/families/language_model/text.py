"""The text that a language model reads of a query and of a product."""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from esci_tournament.registry.errors import DataError
from esci_tournament.tasks.families.language_model.spec import TextField

# Characters read for each token wanted: text beyond them would be cut off after tokenisation.
CHARACTERS_PER_TOKEN = 16

_TAG = re.compile(r"<[^<>]{1,200}>")
_BLANK = re.compile(r"\s+")


def clean(text: str, limit: int | None = None) -> str:
    """Return the text without HTML tags and entities, white space collapsed.

    Args:
        text: text of a query or of a field.
        limit: characters kept at most; None keeps all.

    Returns:
        The clean text.

    Example:
        >>> clean("<b>Salt &amp;  pepper</b>")
        'Salt & pepper'
    """
    if limit is not None:
        text = text[: 2 * limit]  # tags and entities shrink, so read more than is kept
    if "<" in text or "&" in text:
        text = _TAG.sub(" ", html.unescape(_TAG.sub(" ", text)))
    return _BLANK.sub(" ", text).strip()[:limit]


def query_texts(queries: Iterable[str]) -> list[str]:
    """Return each query without HTML tags and entities, white space collapsed."""
    return [clean(query) for query in queries]


def field_texts(
    products: pd.DataFrame, rows: np.ndarray, fields: Sequence[TextField], max_tokens: int
) -> dict[str, list[str]]:
    """Return the clean text of each field of some products.

    Args:
        products: the catalogue, columns of `Dataset.products`.
        rows: int (n,), rows of `products`.
        fields: the fields wanted.
        max_tokens: tokens that can be kept of a field at most; 16 characters are read for each.

    Returns:
        For each field, in the order of `fields`, n texts in the order of `rows`; missing text is "".

    Raises:
        DataError: if the catalogue lacks a field or a row is beyond its end.
    """
    if missing := [name for name in fields if name not in products.columns]:
        raise DataError(f"the catalogue has no text field {missing[0]!r}", column=missing[0])
    if len(rows) and not 0 <= int(np.min(rows)) <= int(np.max(rows)) < len(products):
        raise DataError(f"a pair names product row {int(np.max(rows))}; the catalogue has {len(products)} rows")
    limit = max_tokens * CHARACTERS_PER_TOKEN
    # Taken before they become Python strings: a page must not cost time for the whole catalogue
    texts = {name: np.asarray(products[name].array.take(rows), object) for name in fields}
    return {
        name: [clean(text, limit) if isinstance(text, str) else "" for text in found] for name, found in texts.items()
    }


def digest_texts(texts: Iterable[str]) -> str:
    """Return a BLAKE2b digest of a sequence of texts, 32 hex digits; their order counts."""
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()
