"""Simulate customers of the generated world: sessions of queries, pages of products, clicks, adds and purchases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

PAGE = 10  # products a customer is shown
# Chance of an action given the one before it, by true label E, S, C, I: each step is rarer and more precise.
CLICK = np.array([0.55, 0.14, 0.06, 0.01])
ADD = np.array([0.45, 0.20, 0.30, 0.05])
PURCHASE = np.array([0.55, 0.30, 0.40, 0.10])
# How likely a product of each label is retrieved, against the others of its locale.
RETRIEVAL = np.array([6.0, 2.5, 1.0, 0.05])
QUERIES_A_SESSION = 3


@dataclass(frozen=True)
class Searches:
    """The searches of one locale.

    Attributes:
        query: What was typed, one text per search, in the order of time within a session.
        labels: int8 (n_searches, n_products), the true label of every product of the locale for the search.
        session: int64 (n_searches,), number of the session.
    """

    query: list[str]
    labels: np.ndarray
    session: np.ndarray


def simulate(searches: Searches, product_ids: np.ndarray, locale: str, rng: np.random.Generator) -> pd.DataFrame:
    """Return the events that customers cause in these searches.

    A page of at most :data:`PAGE` products is drawn without replacement by label, its better products tend to stand
    higher. A customer looks at position p (from 0) with chance 1 / (1 + 0.15 p), clicks by the label, adds what was
    clicked, and buys what was added. Sessions begin within four weeks from 2026-01-05; their searches are five minutes
    apart.

    Args:
        searches: The searches, at least one.
        product_ids: str (n_products,), in the order of the columns of `searches.labels`.
        locale: The locale of all of them.
        rng: Source of all random numbers; it is advanced.

    Returns:
        Frame with the columns of `behaviour_events.parquet`: `timestamp` datetime64[us], `client_id`, `session_id`,
        `query`, `locale`, `product_id` and `action`, sorted by time.
    """
    count, products = searches.labels.shape
    page = min(PAGE, products)
    # Gumbel top-k: a weighted draw without replacement, its order already biased towards the heavier products.
    keys = np.log(RETRIEVAL)[searches.labels] + rng.gumbel(size=(count, products))
    best = np.argpartition(-keys, page - 1, axis=1)[:, :page]
    order = np.argsort(-np.take_along_axis(keys, best, axis=1), axis=1, kind="stable")
    shown = np.take_along_axis(best, order, axis=1)
    labels = np.take_along_axis(searches.labels, shown, axis=1)
    looked = rng.random(shown.shape) < 1.0 / (1.0 + 0.15 * np.arange(page))
    clicked = looked & (rng.random(shown.shape) < CLICK[labels])
    added = clicked & (rng.random(shown.shape) < ADD[labels])
    bought = added & (rng.random(shown.shape) < PURCHASE[labels])

    start = np.datetime64("2026-01-05T00:00:00", "us")
    _, session = np.unique(searches.session, return_inverse=True)
    sessions = int(session.max()) + 1
    began = rng.integers(0, 28 * 86_400, size=sessions)  # seconds within four weeks
    nth = pd.Series(session).groupby(session).cumcount().to_numpy()
    seconds = (began[session] + 300 * nth).astype(np.int64)
    client = rng.integers(0, max(1, sessions // 2), size=sessions)[session]
    parts = []
    for step, (action, happened) in enumerate(
        (("impression", np.ones_like(clicked)), ("click", clicked), ("add", added), ("purchase", bought))
    ):
        search, position = np.nonzero(happened)
        delay = np.array([0, 5, 60, 200])[step] + position
        parts.append(
            pd.DataFrame(
                {
                    "timestamp": start + (seconds[search] + delay).astype("timedelta64[s]"),
                    "client_id": [f"{locale}-client-{number}" for number in client[search]],
                    "session_id": [f"{locale}-session-{number}" for number in searches.session[search]],
                    "query": np.asarray(searches.query, dtype=object)[search],
                    "locale": locale,
                    "product_id": product_ids[shown[search, position]],
                    "action": action,
                }
            )
        )
    return pd.concat(parts, ignore_index=True).sort_values("timestamp", kind="stable", ignore_index=True)
