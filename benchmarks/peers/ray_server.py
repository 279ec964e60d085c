"""Ray Serve: two replicas with @serve.batch; a change of champion is a lightweight update, by `user_config`."""

from __future__ import annotations

import asyncio
import signal
import sys
from itertools import count
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from benchmarks.peers.champion import DEADLINE_S, PAGES_A_BATCH, Champion


@serve.deployment
class Pages:
    """A replica; what it computes runs in a thread, so that requests can be taken back meanwhile."""

    async def reconfigure(self, config: dict[str, Any]) -> None:
        self.champion = await asyncio.to_thread(Champion)

    async def __call__(self, request: Request) -> dict[str, Any]:
        return await self.answer(await request.json())

    @serve.batch(max_batch_size=PAGES_A_BATCH, batch_wait_timeout_s=0.002)
    async def answer(self, pages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self.champion.answer, pages)


def main(port: str, replicas: str) -> None:
    """Serve until the process is told to end; SIGUSR1 says that there is another champion."""
    signals = {signal.SIGUSR1, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    ray.init(num_cpus=int(replicas), include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(port), "request_timeout_s": DEADLINE_S})
    for number in count():
        deployment = Pages.options(
            num_replicas=int(replicas),
            ray_actor_options={"num_cpus": 1},
            max_ongoing_requests=2 * PAGES_A_BATCH,
            health_check_period_s=1,
            user_config={"number": number},
        )
        serve.run(deployment.bind())
        if signal.sigwait(signals) == signal.SIGTERM:
            break
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
