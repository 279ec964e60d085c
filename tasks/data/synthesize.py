"""Synthesize a small ESCI-like world whose labels follow from its structure, in the official file format.

What a model can find in it: the type and the attributes of a product from its text; which types are near and which
complement each other from the judgements; and, for the share of products whose text says nothing, the same from what
customers clicked, added and bought. So language models and graph networks each know something the other does not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from esci_tournament.registry.errors import StoreError, UsageError
from esci_tournament.registry.files import publish
from esci_tournament.registry.labels import CLASSES, LABELS
from esci_tournament.tasks.data import vocabulary as words
from esci_tournament.tasks.data.clicks import QUERIES_A_SESSION, Searches, simulate
from esci_tournament.tasks.data.dataset import LOCALES, query_keys, salted_uniform
from esci_tournament.tasks.data.layout import (
    EVENTS_FILE,
    EXAMPLES_COLUMNS,
    EXAMPLES_FILE,
    PRODUCTS_COLUMNS,
    PRODUCTS_FILE,
    WORLD_FILE,
    WORLD_PRODUCTS_FILE,
)
from esci_tournament.tasks.data.world import (
    COMPLEMENT_OF_GROUP,
    GROUP_OF_TYPE,
    Query,
    ask,
    distinct_queries,
    make_catalogue,
    targets_of,
    true_labels,
)

LOCALE_SHARES = (0.5, 0.25, 0.25)
CLASS_MIX = (0.48, 0.28, 0.10, 0.14)  # of the judged pairs before noise; E as far as the catalogue has enough
JUDGED = (8, 16)  # products judged for a query, least and most
TEST_SHARE = 0.25
BLOCK_CELLS = 4_000_000  # searches times products that the click model holds at once

Progress = Callable[[float, str], None]


def synthesize(
    folder: Path,
    *,
    queries: int = 1200,
    seed: int = 0,
    noise: float = 0.05,
    behaviour: bool | Literal["shuffled"] = True,
    uninformative_share: float = 0.2,
    searches_per_query: int = 12,
    products_per_query: float = 3.0,
    progress: Progress = lambda share, doing: None,
) -> Path:
    """Write a world into `folder`: the two official files, `behaviour_events.parquet`, and how it was made.

    The label of a pair: E when the product's type and all attributes that the query asks for agree; S when the type
    agrees and an attribute does not, or the type is a near one; C when the type belongs to the complementary group;
    I otherwise. Then a share `noise` of the labels is replaced by another one at random.

    Args:
        folder: Where to write; it is made if need be.
        queries: Judged queries over all locales, from 12 to 20,000; 8 to 16 pairs each.
        seed: The same seed gives the same files, byte for byte.
        noise: Share of labels that are wrong, in [0, 1).
        behaviour: Whether to write events; "shuffled" permutes their products within a locale: no signal is left.
        uninformative_share: Share of products, in [0, 1), whose text says nothing ("Item 48213") and whose type and
            attributes only behaviour reveals; `world_products.parquet` has the truth.
        searches_per_query: Searches that customers make for each judged query, at least 1, most of them of queries
            without a judged pair.
        products_per_query: Products of the catalogue for each judged query, above 0.
        progress: Called with the share done in [0, 1] and what is being made.

    Returns:
        The folder.

    Raises:
        UsageError: If a number is out of its range, or the world has not so many distinct queries.
        StoreError: If the folder or a file cannot be written.
    """
    _check(queries, noise, behaviour, uninformative_share, searches_per_query, products_per_query)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make the folder {folder}: {error.strerror or error}; choose another one") from error
    rng = np.random.default_rng([seed, 20220614])
    examples, catalogues, events = [], [], []
    next_query = 0
    for number, locale in enumerate(LOCALES):
        progress(number / len(LOCALES), f"making locale {locale}")
        judged = queries - next_query if locale == LOCALES[-1] else round(queries * LOCALE_SHARES[number])
        catalogue = make_catalogue(locale, int(judged * products_per_query), uninformative_share, rng)
        asked = distinct_queries(locale, judged, catalogue, rng)
        examples.append(_judgements(asked, locale, catalogue, next_query, noise, rng))
        next_query += judged
        catalogues.append(catalogue)
        if behaviour:
            events.append(_behaviour(asked, locale, catalogue, judged * searches_per_query, behaviour, rng))
    pairs = pd.concat(examples, ignore_index=True)
    pairs.insert(0, "example_id", np.arange(len(pairs), dtype=np.int64))
    products = pd.concat(catalogues, ignore_index=True)
    _write(folder, pairs, products, events)
    description = {
        "queries": queries,
        "pairs": len(pairs),
        "products": len(products),
        "events": sum(map(len, events)),
        "seed": seed,
        "noise": noise,
        "behaviour": behaviour,
        "uninformative_share": uninformative_share,
        "class_mix": {label: round(float((pairs["esci_label"] == label).mean()), 4) for label in LABELS},
        "test_share_of_queries": TEST_SHARE,
    }
    _atomically(
        folder / WORLD_FILE, lambda path: path.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    )
    progress(1.0, "made the world")
    return folder


def _check(queries: int, noise: float, behaviour: object, uninformative: float, searches: int, products: float) -> None:
    complaints = {
        f"queries is {queries}; it must be from 12 to 20000": 12 <= queries <= 20_000,
        f"noise is {noise}; it must be in [0, 1)": 0 <= noise < 1,
        f"behaviour is {behaviour!r}; it must be True, False or 'shuffled'": behaviour in (True, False, "shuffled"),
        f"uninformative_share is {uninformative}; it must be in [0, 1)": 0 <= uninformative < 1,
        f"searches_per_query is {searches}; it must be at least 1": searches >= 1,
        f"products_per_query is {products}; it must be above 0": products > 0,
    }
    for complaint, holds in complaints.items():
        if not holds:
            raise UsageError(f"cannot synthesize: {complaint}")


def _judgements(
    asked: list[Query],
    locale: str,
    catalogue: pd.DataFrame,
    first_id: int,
    noise: float,
    rng: np.random.Generator,
) -> pd.DataFrame:
    rows, labels, owners = [], [], []
    for number, query in enumerate(asked):
        true = true_labels(query, catalogue)
        chosen = _pool(true, int(rng.integers(JUDGED[0], JUDGED[1] + 1)), rng)
        rows.append(chosen)
        labels.append(true[chosen])
        owners.append(np.full(len(chosen), number))
    row, label, owner = np.concatenate(rows), np.concatenate(labels), np.concatenate(owners)
    wrong = rng.random(len(label)) < noise
    label = np.where(wrong, (label + rng.integers(1, CLASSES, size=len(label))) % CLASSES, label)
    texts = [query.text for query in asked]
    uniform = salted_uniform(query_keys(texts, [locale] * len(texts)), "official split")
    split = np.where(uniform < TEST_SHARE, "test", "train")
    return pd.DataFrame(
        {
            "query": np.asarray(texts, dtype=object)[owner],
            "query_id": (owner + first_id).astype(np.int64),
            "product_id": catalogue["product_id"].to_numpy(object)[row],
            "product_locale": locale,
            "esci_label": np.asarray(LABELS, dtype=object)[label],
            "small_version": np.ones(len(row), dtype=np.int64),
            "large_version": np.ones(len(row), dtype=np.int64),
            "split": split.astype(object)[owner],
        }
    )


def _pool(true: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return the products to judge for a query: the class mix as far as there are such products, then S, then I."""
    wanted = rng.multinomial(size, CLASS_MIX)
    chosen: list[np.ndarray] = []
    short = 0
    for label in (0, 2, 1, 3):  # what E and C lack goes to S, what S lacks to I
        available = np.flatnonzero(true == label)
        take = int(wanted[label]) + (short if label in (1, 3) else 0)
        chosen.append(rng.permutation(available)[:take])
        missing = take - len(chosen[-1])
        short = missing + (short if label in (0, 2) else 0)
    return rng.permutation(np.concatenate(chosen))


def _behaviour(
    judged: list[Query],
    locale: str,
    catalogue: pd.DataFrame,
    count: int,
    behaviour: bool | str,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Return the events of `count` searches; a session stays with one product or turns to a complement."""
    targets = targets_of(catalogue)
    by_group = [np.flatnonzero(GROUP_OF_TYPE[targets[:, 0]] == group) for group in range(len(words.GROUPS))]
    asked: list[Query] = []
    target = 0
    for number in range(count):
        if number % QUERIES_A_SESSION == 0:
            target = int(rng.integers(len(targets)))
        elif rng.random() < 0.4:
            target = int(rng.choice(by_group[COMPLEMENT_OF_GROUP[GROUP_OF_TYPE[targets[target, 0]]]]))
        if rng.random() < 0.15:
            asked.append(judged[int(rng.integers(len(judged)))])
        else:
            asked.append(ask(locale, tuple(targets[target]), rng))
    session = np.arange(count) // QUERIES_A_SESSION
    product_ids = catalogue["product_id"].to_numpy(object)
    block = QUERIES_A_SESSION * max(1, BLOCK_CELLS // (QUERIES_A_SESSION * len(catalogue)))
    parts = []
    for start in range(0, count, block):
        part = asked[start : start + block]
        labels = np.stack([true_labels(query, catalogue) for query in part])
        searches = Searches([query.text for query in part], labels, session[start : start + block])
        parts.append(simulate(searches, product_ids, locale, rng))
    events = pd.concat(parts, ignore_index=True)
    if behaviour == "shuffled":
        events["product_id"] = rng.permutation(events["product_id"].to_numpy(object))
    return events


def _write(folder: Path, pairs: pd.DataFrame, products: pd.DataFrame, events: list[pd.DataFrame]) -> None:
    official = [name for name in PRODUCTS_COLUMNS if name in products]
    truth = ["product_id", "product_locale", "type", "brand_number", "color_number", "feature", "uninformative"]
    _write_parquet(folder / PRODUCTS_FILE, products[official])
    _write_parquet(folder / WORLD_PRODUCTS_FILE, products[truth])
    if events:
        every = pd.concat(events, ignore_index=True)
        _write_parquet(folder / EVENTS_FILE, every.sort_values("timestamp", kind="stable", ignore_index=True))
    else:
        (folder / EVENTS_FILE).unlink(missing_ok=True)
    _write_parquet(folder / EXAMPLES_FILE, pairs[list(EXAMPLES_COLUMNS)])


def _write_parquet(path: Path, frame: pd.DataFrame) -> None:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    _atomically(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))


def _atomically(path: Path, write: Callable[[Path], object]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(temporary)
        publish(temporary, path)
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
