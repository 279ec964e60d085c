"""BentoML: two workers with adaptive batching."""

from __future__ import annotations

import os
from typing import Any

import bentoml

from benchmarks.peers.champion import DEADLINE_S, PAGES_A_BATCH, Champion


@bentoml.service(
    workers=int(os.environ["REPLICAS"]), traffic={"timeout": DEADLINE_S}, logging={"access": {"enabled": False}}
)
class Pages:
    """A worker; what comes and goes is a list of pages, because batches are joined along a list."""

    def __init__(self) -> None:
        self.champion = Champion()

    @bentoml.api(
        batchable=True, max_batch_size=PAGES_A_BATCH, max_latency_ms=round(1000 * DEADLINE_S), route="/v1/score"
    )
    def answer(self, pages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return self.champion.answer(pages)
