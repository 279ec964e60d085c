"""Arrow columns become what a data set keeps: text, categories, query keys, rows of the catalogue."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from esci_tournament.tasks.data.dataset import query_keys


def text(array: pa.Array) -> pd.Series:
    return pa.table({"text": array}).to_pandas()["text"]


def category(array: pa.Array, known: Sequence[str]) -> pd.Categorical:
    """Return text as categories: the known ones first, in their order, then the unknown ones that occur, sorted."""
    encoded = array.dictionary_encode()
    found = encoded.dictionary.to_pylist()
    categories = [*known, *sorted(set(found) - set(known))]
    codes = np.asarray([categories.index(value) for value in found], dtype=np.int64)
    return pd.Categorical.from_codes(codes[encoded.indices.to_numpy()], categories)


def keys_of(queries: pa.Array, locales: pa.Array) -> np.ndarray:
    """Return the key of every row's query, uint64 (n,); only distinct (query, locale) are hashed."""
    encoded = joined(locales, queries).dictionary_encode()
    parts = [text.partition("\x1f") for text in encoded.dictionary.to_pylist()]
    keys = query_keys((query for _, _, query in parts), (locale for locale, _, _ in parts))
    return keys[encoded.indices.to_numpy()]


def catalogue_keys(columns: dict[str, pa.Array]) -> pa.Array:
    return joined(columns["product_locale"], columns["product_id"])


def rows_in(catalogue: pa.Array, product_ids: pa.Array, locales: pa.Array) -> np.ndarray:
    """Return the catalogue row of every (product, locale), int32 (n,), -1 where there is none."""
    return (
        pc.fill_null(pc.index_in(joined(locales, product_ids), catalogue), -1)
        .to_numpy(zero_copy_only=False)
        .astype(np.int32)
    )


def joined(locales: pa.Array, texts: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(locales, texts, pa.scalar("\x1f", pa.large_string()))
