"""LitServe: two workers, batches of what waits, over its ZeroMQ queue; workers that end are started anew."""

from __future__ import annotations

import sys
from typing import Any

import litserve

from benchmarks.peers.champion import DEADLINE_S, PAGES_A_BATCH, Champion


class Api(litserve.LitAPI):
    """Pages in, answers out."""

    def setup(self, device: str) -> None:
        self.champion = Champion()

    def predict(self, pages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return self.champion.answer(pages)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return output


def main(port: str, replicas: str) -> None:
    """Serve until the process is told to end."""
    api = Api(max_batch_size=PAGES_A_BATCH, batch_timeout=0.002)
    server = litserve.LitServer(
        api,
        accelerator="cpu",
        workers_per_device=int(replicas),
        timeout=DEADLINE_S,
        fast_queue=True,
        restart_workers=True,
    )
    server.run(host="127.0.0.1", port=int(port), num_api_servers=1, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
