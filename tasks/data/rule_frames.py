"""Build the frames that the rules of the data are checked on."""

from __future__ import annotations

import numpy as np
import pandas as pd

from esci_tournament.registry.labels import LABELS
from esci_tournament.tasks.data.columns import is_of_kind, kind_of
from esci_tournament.tasks.data.dataset import LOCALES, Dataset
from esci_tournament.tasks.data.layout import COLUMNS, LABEL_COLUMN, WORLD_FILE, WORLD_PRODUCTS_FILE
from esci_tournament.tasks.data.logs import EXPECTED, REASONS
from esci_tournament.tasks.data.parquet_files import is_there, opened, parts_of
from esci_tournament.tasks.data.relations import TABLED, relation_type
from esci_tournament.tasks.data.split import copied_rows, crossing_rows
from esci_tournament.tasks.data.ubi_files import NAMES

_DATA_SUFFIXES = {".parquet", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".gz", ".zip", ".arrow", ".feather"}
# Of the official release, where queries come from; and what describes a generated world
_KNOWN_TO_BE_NO_DATA = ("shopping_queries_dataset_sources.csv", WORLD_FILE, WORLD_PRODUCTS_FILE)


def frames_of(dataset: Dataset) -> dict[str, pd.DataFrame]:
    """Return the frames that the rules are checked on, under the official column names; large columns are not copied.

    Args:
        dataset: The data set; the files of its folder are read for their schemas.

    Returns:
        Name of a frame -> the frame. Always there: "examples" and "products" (rows of the data set), "queries" (one row
        a query), "summary" (one row of counts and shares) and "columns" (see :func:`columns_found`). Only with such
        logs: "events", "edges" (see :func:`edges_frame`) and "logs" (one row: how many rows are left out, by
        reason, and `least_kept`, the least of :func:`kept_shares`).
    """
    pairs, products = dataset.pairs, dataset.products
    label = pd.Categorical.from_codes(np.where(pairs["label"] < 0, len(LABELS), pairs["label"]), [*LABELS, "unknown"])
    title = products["title"].str.strip()
    frames = {
        "examples": pairs[["example_id", "query_id", "product_id"]].assign(
            product_locale=pairs["locale"], esci_label=label, split=pairs["split"]
        ),
        "queries": pairs[["query_key", "query"]].drop_duplicates("query_key"),
        "products": pd.DataFrame(
            {
                "product_id": products["product_id"],
                "product_locale": products["locale"],
                "product_title": title.mask(title == ""),
            }
        ),
        "summary": _summary(dataset),
        "columns": columns_found(dataset),
    }
    if dataset.events is not None:
        frames["events"] = dataset.events[["locale", "action", "product"]]
    if dataset.edges is not None:
        frames["edges"] = edges_frame(dataset.edges)
    if dataset.events is not None or dataset.edges is not None:
        count = {reason: sum(one.count for one in dataset.left_out if one.reason == reason) for reason in REASONS}
        frames["logs"] = pd.DataFrame([count | {"least_kept": min(kept_shares(dataset).values(), default=1.0)}])
    return frames


def edges_frame(edges: pd.DataFrame) -> pd.DataFrame:
    """Return the edges of the edge table as their rules are checked on them.

    Args:
        edges: Frame with the columns :data:`~esci_tournament.tasks.data.dataset.EDGE_COLUMNS`.

    Returns:
        Frame on the same index: `locale`, `relation`, `weight` float64 with -1 for NaN, and `one_origin` bool: whether
        the edge starts at a query or at a product of the catalogue, not at both, as its relation wants it.
    """
    has_query, has_source = edges["query"].str.strip() != "", edges["source"] >= 0
    between_products = [name for name in TABLED if relation_type(name).ends == "product"]
    fits = edges["relation"].isin(between_products).to_numpy() == has_source.to_numpy()
    # Great Expectations lets a missing value pass every rule, so it becomes one that breaks the rule on weights.
    return edges[["locale", "relation"]].assign(
        weight=edges["weight"].fillna(-1), one_origin=(has_query ^ has_source) & fits
    )


def columns_found(dataset: Dataset) -> pd.DataFrame:
    """Compare the columns of each file with those that it must have; others were judged when it was read.

    Args:
        dataset: The data set; the schemas of the parquet files in its folder are read.

    Returns:
        Frame with one row per column that a file must have: `file`, `column`, `found` (what the schema says it is) and
        `expected`, both a :data:`~esci_tournament.tasks.data.layout.Kind`, another Arrow type, or "no column".
    """
    rows = []
    for name, columns in COLUMNS.items():
        if not is_there(dataset.source / name):
            continue
        schema = opened(dataset.source / name).schema
        for column, kind in columns.items():
            seen = kind_of(schema.field(column).type) if column in schema.names else "no column"
            # What else labels may be was looked at when they were read
            readable = column == LABEL_COLUMN or is_of_kind(seen, kind, column)
            rows.append((name, column, kind if readable else seen, kind))
    return pd.DataFrame(rows, columns=["file", "column", "found", "expected"])


def kept_shares(dataset: Dataset) -> dict[str, float]:
    """Return which share of each log is of use, of the rows that no rule or setting leaves out on purpose.

    Args:
        dataset: The data set; `left_out` is read.

    Returns:
        File name -> share in [0, 1], of the logs of which anything is left out.
    """
    shares = {}
    for file in dict.fromkeys(one.file for one in dataset.left_out if one.rows):
        parts = [one for one in dataset.left_out if one.file == file]
        wanted = parts[0].rows - sum(one.count for one in parts if one.reason in EXPECTED)
        lost = sum(one.count for one in parts if one.reason not in EXPECTED)
        shares[file] = 1 - lost / wanted if wanted else 1.0
    return shares


def unread_files(dataset: Dataset) -> list[str]:
    """Return the files of a data set's folder, and of its folders of parts, that look like data and that nothing reads.

    Args:
        dataset: The data set.

    Returns:
        Their paths from the folder, sorted.
    """
    if not dataset.source.is_dir():
        return []
    read = {*COLUMNS, *NAMES, *_KNOWN_TO_BE_NO_DATA}
    known = {
        part.path for name in COLUMNS if is_there(dataset.source / name) for part in parts_of(dataset.source / name)
    }
    beside = [path for path in dataset.source.iterdir() if path.name not in read]
    inside = [
        path for name in COLUMNS if (dataset.source / name).is_dir() for path in (dataset.source / name).iterdir()
    ]
    return sorted(
        path.relative_to(dataset.source).as_posix()
        for path in (*beside, *inside)
        if path not in known
        and not path.name.startswith(".")
        and {*path.suffixes} & _DATA_SUFFIXES
        and (path.is_file() or path.suffix == ".parquet")
    )


def locales_in(dataset: Dataset) -> tuple[str, ...]:
    """Return the known locales that a data set has pairs or products of, in the official order."""
    found = {*dataset.pairs["locale"].unique(), *dataset.products["locale"].unique()}
    return tuple(locale for locale in LOCALES if locale in found)


def _summary(dataset: Dataset) -> pd.DataFrame:
    """Return the rules that span tables or groups as one row of counts and shares."""
    pairs = dataset.pairs
    crossing = crossing_rows(pairs)
    row: dict[str, float] = {
        "pairs_without_product": int((pairs["product"] < 0).sum()),
        "queries_in_both_splits": pairs.loc[crossing, "query_key"].nunique(),
        "queries_copied_to_test": pairs.loc[copied_rows(pairs, crossing), "query_key"].nunique(),
        "unread_files": len(unread_files(dataset)),
        "test_pairs": int((pairs["split"] == "test").sum()),
    }
    row |= {f"share_{label}": float((pairs["label"] == code).mean()) for code, label in enumerate(LABELS)}
    row |= {f"rows_{locale}": int((pairs["locale"] == locale).sum()) for locale in locales_in(dataset)}
    return pd.DataFrame([row])
