"""A load test of a running scorer with locust: users who page through results.

    locust -f benchmarks/load/locustfile.py --host http://127.0.0.1:8080 --users 50 --spawn-rate 10 --headless -t 10m

Products are those of SCORER_PRODUCTS (a products parquet with the official columns); without it, pages send text.
SCORER_KEY is the API key; SCORER_NEW is the share of pages that were not requested before (default 0.1).
"""

from __future__ import annotations

import os
import random

import pyarrow.parquet as parquet
from locust import FastHttpUser, between, task

_WORDS = ("red", "blue", "small", "large", "lamp", "bottle", "mug", "cable", "desk", "garden", "steel", "kids")
_PAGE, _KNOWN_QUERIES = 40, 200
_NEW = float(os.environ.get("SCORER_NEW", "0.1"))
_HEADERS = {"Authorization": f"Bearer {os.environ['SCORER_KEY']}"} if os.environ.get("SCORER_KEY") else {}


def _catalogue() -> list[str]:
    path = os.environ.get("SCORER_PRODUCTS")
    if not path:
        return []
    table = parquet.read_table(path, columns=["product_id", "product_locale"])
    rows = zip(table["product_id"].to_pylist(), table["product_locale"].to_pylist(), strict=True)
    return [product for product, locale in rows if locale == "us"]


_PRODUCTS = _catalogue()


class Shopper(FastHttpUser):
    """Asks for pages, most of which somebody has asked for before."""

    wait_time = between(0.05, 0.2)

    @task(8)
    def page(self) -> None:
        self._ask("probabilities")

    @task(3)
    def labels(self) -> None:
        self._ask("labels")

    @task(1)
    def why(self) -> None:
        self._ask("contributions")

    def _ask(self, want: str) -> None:
        number = random.randrange(_KNOWN_QUERIES) if random.random() >= _NEW else random.randrange(10**9)
        chooser = random.Random(number)
        query = " ".join(chooser.sample(_WORDS, 2)) + (f" {number}" if number >= _KNOWN_QUERIES else "")
        if _PRODUCTS:
            products = [{"id": one} for one in chooser.sample(_PRODUCTS, min(_PAGE, len(_PRODUCTS)))]
        else:
            products = [{"title": " ".join(chooser.sample(_WORDS, 4))} for _ in range(_PAGE)]
        page = {"query": query, "locale": "us", "products": products, "want": want}
        with self.client.post(
            "/v1/score", json=page, headers=_HEADERS, name=f"/v1/score {want}", catch_response=True
        ) as answer:
            if answer.status_code != 200:
                answer.failure(f"{answer.status_code} {answer.text[:200]}")
            elif not answer.json()["complete"]:
                answer.failure("incomplete")
