"""Name the files of a data folder, their columns and the kind of value in each."""

from __future__ import annotations

from typing import Literal

from esci_tournament.tasks.data.relations import TABLED

EXAMPLES_FILE = "shopping_queries_dataset_examples.parquet"
PRODUCTS_FILE = "shopping_queries_dataset_products.parquet"
EVENTS_FILE = "behaviour_events.parquet"
EDGES_FILE = "behaviour_edges.parquet"
UBI_FILES = ("ubi_queries.ndjson", "ubi_events.ndjson", "ubi_queries_events.ndjson")  # in other shapes: `ubi_files`
LOG_FILES = (EVENTS_FILE, EDGES_FILE, *UBI_FILES)  # none of them is needed
SPLITS = ("train", "test")
YEARS = (2000, 2100)  # of behaviour, from the beginning of the first to that of the last; other times have a wrong unit
WORLD_FILE, WORLD_PRODUCTS_FILE = (
    "world.json",
    "world_products.parquet",
)  # describe a generated world; nothing learns them

Kind = Literal["integer", "number", "text", "time"]

UNNAMED_INDEX = "__index_level_"  # begins the columns in which pandas keeps the unnamed index of a frame
LABEL_COLUMN = "esci_label"

EXAMPLES_COLUMNS: dict[str, Kind] = {
    "example_id": "integer",
    "query": "text",
    "query_id": "integer",
    "product_id": "text",
    "product_locale": "text",
    LABEL_COLUMN: "text",
    "small_version": "integer",
    "large_version": "integer",
    "split": "text",
}
PRODUCTS_COLUMNS: dict[str, Kind] = {
    "product_id": "text",
    "product_title": "text",
    "product_description": "text",
    "product_bullet_point": "text",
    "product_brand": "text",
    "product_color": "text",
    "product_locale": "text",
}
EVENTS_COLUMNS: dict[str, Kind] = {
    "timestamp": "time",
    "client_id": "text",
    "session_id": "text",
    "query": "text",
    "locale": "text",
    "product_id": "text",
    "action": "text",
}
EDGES_COLUMNS: dict[str, Kind] = {
    "query": "text",
    "source_product_id": "text",
    "locale": "text",
    "product_id": "text",
    "relation": "text",
    "weight": "number",
    "timestamp": "time",
}
TABLE_RELATIONS = TABLED
COLUMNS: dict[str, dict[str, Kind]] = {
    EXAMPLES_FILE: EXAMPLES_COLUMNS,
    PRODUCTS_FILE: PRODUCTS_COLUMNS,
    EVENTS_FILE: EVENTS_COLUMNS,
    EDGES_FILE: EDGES_COLUMNS,
}
