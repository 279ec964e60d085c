"""`tournament serve`: serve the champion over HTTP."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from esci_tournament.deployments.cli.common import Output, command, settings_of
from esci_tournament.deployments.cli.ending import ending

CLOSE_S = 10.0  # for caches and processes, when requests under way are finished

DESCRIPTION = """\
Serve the champion over HTTP until stopped. After a promotion or rollback the new champion serves within seconds,
without a failed request. Without an API key it listens on this machine only; `tournament keys create NAME` makes one.

example:
  tournament serve --port 8080
  curl -s localhost:8080/v1/score -H 'content-type: application/json' \\
    -d '{"query": "red lamp", "locale": "us", "products": [{"title": "Velo red lamp"}]}'
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(commands, "serve", work, "serve the champion over HTTP", DESCRIPTION)
    parser.add_argument("--host", help="address to listen on (default: setting host, 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port, 0 for a free one (default: setting scorer_port, 8080)")
    parser.add_argument(
        "--catalogue", type=Path, metavar="DIR", help="folder of products (default: the champion's data set)"
    )
    parser.add_argument("--device", help="auto, cpu, cuda or cuda:N (default: auto)")


def work(options: argparse.Namespace, output: Output) -> None:
    """Serve until the process is told to stop, and show the address once it is bound."""
    import logging

    from esci_tournament.deployments.scorer.address import check_address

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("scorer").setLevel(logging.INFO)
    settings = settings_of(options, device=options.device)
    host = options.host or settings.host
    check_address(settings, host)  # before the import below, which takes seconds
    from esci_tournament.deployments.scorer.server import serve

    port = settings.scorer_port if options.port is None else options.port

    def ready(address: str) -> None:
        output.say(
            f"the scorer listens at {address}; open it in a browser to try a query; /docs describes requests, /readyz "
            "says when the champion is loaded"
        )
        output.document({"address": address})

    ending.grace_s = settings.drain_s + CLOSE_S
    serve(settings, host, port, options.catalogue, ready)
