"""Recognise the columns of tables that other people made, by the names that are usual for them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from esci_tournament.registry.errors import DataError, UsageError
from esci_tournament.tasks.data.layout import EXAMPLES_COLUMNS, LABEL_COLUMN, PRODUCTS_COLUMNS

# Official name -> other names, as words joined by underscores. What is left out is left out on purpose: a "language" is
# no market, and a "rating" of a product is no judgement of a pair.
_USUAL: dict[str, tuple[str, ...]] = {
    "example_id": ("pair_id", "judgement_id", "judgment_id"),
    "query": ("search_query", "search_term", "query_text", "user_query", "keyword", "keywords", "q"),
    "query_id": ("qid", "queryid", "search_id"),
    "product_id": ("productid", "item_id", "doc_id", "docid", "document_id", "asin", "sku"),
    "product_locale": ("query_locale", "locale", "market", "marketplace"),
    LABEL_COLUMN: ("label", "labels", "relevance", "judgement", "judgment", "grade", "gain"),
    "small_version": (),
    "large_version": (),
    "split": ("subset", "partition"),
    "product_title": ("title", "product_name", "item_title", "name"),
    "product_description": ("description", "item_description"),
    "product_bullet_point": ("product_bullet_points", "bullet_point", "bullet_points", "bullets", "features"),
    "product_brand": ("brand", "brand_name"),
    "product_color": ("product_color_name", "color", "colour", "color_name", "product_colour"),
}
TEXTS = tuple(name for name in PRODUCTS_COLUMNS if name not in ("product_id", "product_locale"))
NAMES = tuple(dict.fromkeys((*EXAMPLES_COLUMNS, *PRODUCTS_COLUMNS)))


def recognised(columns: Sequence[str], said: Mapping[str, str], table: str) -> dict[str, str]:
    """Return which column of a table is which official one.

    Args:
        columns: Names of the table's columns.
        said: Official name -> name of a column, which goes before usual names; a table may lack it.
        table: How messages call the table.

    Returns:
        Official name -> the table's name for it, for those that it has.

    Raises:
        UsageError: If `said` names no official column.
        DataError: If several columns might be the same one.

    Example:
        >>> recognised(["Query", "ASIN", "query_locale", "price"], {}, "x.csv")
        {'query': 'Query', 'product_id': 'ASIN', 'product_locale': 'query_locale'}
    """
    if unknown := [name for name in said if name not in NAMES]:
        raise UsageError(
            f"there is no column {', '.join(unknown)} to read another one as; there are {', '.join(NAMES)}"
        )
    words: dict[str, list[str]] = {}
    for column in columns:
        words.setdefault("_".join(re.findall(r"[^\W_]+", column.casefold())), []).append(column)
    taken = {column for column in said.values() if column in columns}
    found = {}
    for name, usual in _USUAL.items():
        if name in said:
            if said[name] in columns:
                found[name] = said[name]
            continue
        exact = [name] if name in columns else words.get(name, [])
        likely = [one for other in usual for one in words.get(other, [])]
        candidates = [one for one in (exact or likely) if one not in taken]
        if len(candidates) > 1:
            advice = f"say which, such as --column {name}={candidates[0]}"
            raise DataError(f"several columns may be {name}", file=table, column=", ".join(candidates), advice=advice)
        if candidates:
            found[name] = candidates[0]
    if "product_title" in found and "query" not in found and "product_id" not in found and "id" in columns:
        found["product_id"] = "id"  # of a catalogue: in a table of judgements it may be anything
    return found
