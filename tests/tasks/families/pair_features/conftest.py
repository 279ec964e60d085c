"""A shop of lamps and shoes, of which the label of a pair follows from kind and color."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from esci_tournament.tasks.data.dataset import LOCALES, query_keys
from esci_tournament.tasks.families.protocol import FitData

KINDS, COLORS, BRANDS = ("desk lamp", "running shoe", "coffee mug"), ("red", "blue", "green"), ("Lumo", "Nord Pol")


@dataclass(frozen=True)
class Shop:
    """Products, pairs to learn from, to validate and to test on, and clicks of the queries that are learnt from."""

    products: pd.DataFrame
    fit: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame
    edges: pd.DataFrame

    def data(self, work: Path, **changes: object) -> FitData:
        return replace(FitData(self.fit, self.validation, self.products, None, 1, "cpu", work), **changes)


@pytest.fixture(scope="session")
def shop() -> Shop:
    rng = np.random.default_rng(5)
    kinds, colors, brands = (rng.integers(0, len(one), 240) for one in (KINDS, COLORS, BRANDS))
    products = pd.DataFrame(
        {
            "product_id": [f"P{row:03d}" for row in range(240)],
            "locale": pd.Categorical(["us"] * 240, categories=LOCALES),
            "title": [
                f"{BRANDS[brand]} {COLORS[color]} {KINDS[kind]} model {number}"
                for number, (brand, color, kind) in enumerate(zip(brands, colors, kinds, strict=True))
            ],
            "brand": [BRANDS[brand] for brand in brands],
            "color": [COLORS[color].title() for color in colors],
            "bullets": "",
            "description": "made with care",
        }
    )
    wanted = [(kind, color) for kind in range(len(KINDS)) for color in range(len(COLORS))] * 14
    texts = [f"{COLORS[color]} {KINDS[kind]} {number}" for number, (kind, color) in enumerate(wanted)]
    keys = query_keys(texts, ["us"] * len(texts))
    rows = [(number, product) for number in range(len(texts)) for product in rng.choice(240, 12, replace=False)]
    query, product = np.array(rows).T
    same_kind = np.array(wanted)[query, 0] == kinds[product]
    same_color = np.array(wanted)[query, 1] == colors[product]
    pairs = pd.DataFrame(
        {
            "query": np.array(texts, dtype=object)[query],
            "query_key": keys[query],
            "product": product.astype(np.int32),
            "locale": pd.Categorical(["us"] * len(query), categories=LOCALES),
            "label": np.where(same_kind, np.where(same_color, 0, 1), 3).astype(np.int8),
        }
    )
    role = np.arange(len(texts))[query] % 5
    clicked = np.flatnonzero((pairs["label"].to_numpy() == 0) & (role < 3))
    edges = pairs.iloc[clicked][["query", "locale", "query_key", "product"]].assign(
        relation="clicks", weight=np.float32(1.5)
    )
    parts = [pairs[chosen].reset_index(drop=True) for chosen in (role < 3, role == 3, role == 4)]
    return Shop(products, *parts, edges.reset_index(drop=True))
