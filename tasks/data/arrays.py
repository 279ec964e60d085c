"""Convert Arrow columns to the columns of a data set: text, categories, query keys and rows of the catalogue."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from esci_tournament.tasks.data.dataset import query_keys


def text(array: pa.Array) -> pd.Series:
    """Return a large_string array as a Series whose strings stay Arrow-backed, on a RangeIndex."""
    return pa.table({"text": array}).to_pandas()["text"]


def category(array: pa.Array, known: Sequence[str]) -> pd.Categorical:
    """Return text as categories.

    Args:
        array: large_string (n,), without missing values.
        known: The categories that come first, in their order, whether they occur or not.

    Returns:
        Categorical (n,) with the known categories first, then the unknown ones that occur, sorted.

    Example:
        >>> list(category(pa.array(["jp", "xx", "us"]), ("us", "jp")).categories)
        ['us', 'jp', 'xx']
    """
    encoded = array.dictionary_encode()
    found = encoded.dictionary.to_pylist()
    categories = [*known, *sorted(set(found) - set(known))]
    codes = np.asarray([categories.index(value) for value in found], dtype=np.int64)
    return pd.Categorical.from_codes(codes[encoded.indices.to_numpy()], categories)


def keys_of(queries: pa.Array, locales: pa.Array) -> np.ndarray:
    """Return the key of every row's query; only distinct (query, locale) are hashed.

    Args:
        queries: large_string (n,), without missing values.
        locales: large_string (n,), without missing values.

    Returns:
        uint64 (n,), see :func:`esci_tournament.tasks.data.dataset.query_key`.
    """
    encoded = joined(locales, queries).dictionary_encode()
    parts = [text.partition("\x1f") for text in encoded.dictionary.to_pylist()]
    keys = query_keys((query for _, _, query in parts), (locale for locale, _, _ in parts))
    return keys[encoded.indices.to_numpy()]


def catalogue_keys(columns: dict[str, pa.Array]) -> pa.Array:
    """Return what identifies each product of a catalogue: its locale and id, as :func:`joined` writes them.

    Args:
        columns: Columns of the products file; `product_locale` and `product_id` are read, large_string (n_products,).

    Returns:
        large_string (n_products,), in the order of the file.
    """
    return joined(columns["product_locale"], columns["product_id"])


def rows_in(catalogue: pa.Array, product_ids: pa.Array, locales: pa.Array) -> np.ndarray:
    """Return the catalogue row of every (product, locale).

    Args:
        catalogue: large_string (n_products,), as :func:`catalogue_keys` returns it.
        product_ids: large_string (n,).
        locales: large_string (n,).

    Returns:
        int32 (n,), the first row with that product and locale, -1 where there is none.
    """
    return (
        pc.fill_null(pc.index_in(joined(locales, product_ids), catalogue), -1)
        .to_numpy(zero_copy_only=False)
        .astype(np.int32)
    )


def joined(locales: pa.Array, texts: pa.Array) -> pa.Array:
    """Return locale and text of each row in one string, with the unit separator (U+001F) between them.

    Args:
        locales: large_string (n,).
        texts: large_string (n,).

    Returns:
        large_string (n,).
    """
    return pc.binary_join_element_wise(locales, texts, pa.scalar("\x1f", pa.large_string()))
