"""Puts the parts of a scorer together, and serves it with uvicorn."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from esci_tournament.deployments.connections import limited_protocol
from esci_tournament.deployments.crowd import BACKLOG, ConnectionLimits
from esci_tournament.deployments.listening import PromptServer
from esci_tournament.deployments.scorer.address import check_address, is_loopback, own_names
from esci_tournament.deployments.scorer.admission import Admission
from esci_tournament.deployments.scorer.app import make_app
from esci_tournament.deployments.scorer.chosen_cache import open_cache
from esci_tournament.deployments.scorer.compute.dispatcher import PendingRequests, ServingContext
from esci_tournament.deployments.scorer.compute.fleet import Fleets
from esci_tournament.deployments.scorer.engine import Engine
from esci_tournament.deployments.scorer.gate import Gate
from esci_tournament.deployments.scorer.keys import FILE, Keys
from esci_tournament.deployments.scorer.labels import Labels
from esci_tournament.deployments.scorer.metrics import ScorerMetrics
from esci_tournament.deployments.scorer.preparation import Preparation
from esci_tournament.deployments.scorer.service import Scorer
from esci_tournament.deployments.scorer.swap import Follower
from esci_tournament.registry.errors import StoreError
from esci_tournament.registry.secrecy import hide_process
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.workspace import Workspace

_SHOW_SECONDS = 0.25
SWITCH_SECONDS = 0.0005  # Python's default, 5 ms, would let a cached page wait that long for another thread


@dataclass(frozen=True)
class ScorerParts:
    """A scorer and what runs beside it. The follower and the replicas are started when the application starts.

    Attributes:
        app: the HTTP application.
        scorer: answers pages.
        follower: loads each new champion.
        gate: checks API keys and rates.
    """

    app: FastAPI
    scorer: Scorer
    follower: Follower
    gate: Gate


def build_scorer(
    settings: Settings,
    *,
    catalogue: Path | None = None,
    open_to_all: bool = True,
    hosts: Collection[str] | None = None,
) -> ScorerParts:
    """Build a scorer for the champion of a home; its label cache is opened, but no champion is loaded yet.

    Args:
        settings: those in force.
        catalogue: folder of the products; default: the data set of the champion's tournament.
        open_to_all: whether requests need no API key as long as none was ever made.
        hosts: names under which it may be asked; None for any.

    Returns:
        The parts; `app` is what is served.

    Raises:
        UsageError: if the machine has no such device, or a setting of the label cache is wrong.
        StoreError: if the label cache cannot be opened.
    """
    if settings.device not in ("auto", "cpu"):
        from esci_tournament.tasks.candidates.device import resolve_device

        resolve_device(settings.device)
    metrics, arrivals = ScorerMetrics(), PendingRequests()
    shared = ServingContext(settings, arrivals, metrics)
    engine = Engine(metrics, Admission(settings.queued_pairs), settings.exit_check_share)
    workspace, cache = Workspace(settings), open_cache(settings)
    metrics.show_cache(cache)
    labels = Labels(cache, metrics)
    preparation = Preparation(settings, labels, settings.home / "serving")
    scorer = Scorer(settings, metrics, engine, labels, arrivals, preparation.frequent)
    keys = Keys(settings.home / FILE)
    keys.settle()
    gate = Gate(keys, settings.rate_per_s, settings.rate_burst_s, open_to_all)
    fleets = Fleets(settings, settings.device, settings.home / "serving" / "vectors")
    beside = _Beside(scorer, preparation, fleets)
    follower = Follower(workspace, shared, fleets, preparation, scorer.active.take, beside.wait_for, catalogue)
    beside.follower = follower
    app = make_app(scorer, gate, follower.state, beside.running, hosts)
    return ScorerParts(app, scorer, follower, gate)


class _Beside:
    """Runs the follower and the processes that compute, while the application runs."""

    follower: Follower

    def __init__(self, scorer: Scorer, preparation: Preparation, fleets: Fleets) -> None:
        self._scorer, self._preparation, self._fleets = scorer, preparation, fleets
        self._loop: asyncio.AbstractEventLoop | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self._loop = asyncio.get_running_loop()
        watching = self._loop.create_task(self._show())
        self._fleets.start()
        self.follower.start()
        try:
            yield
        finally:
            self.follower.stop()
            watching.cancel()
            self._scorer.engine.close()
            if self._scorer.active.champion is not None:
                self._scorer.active.champion.retire()
            await self._loop.run_in_executor(None, self._scorer.labels.close)
            await self._loop.run_in_executor(None, self._fleets.close)
            self._preparation.remember(now=True)

    def wait_for(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the event loop and wait for it, in another thread."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _show(self) -> None:
        while True:
            await asyncio.sleep(_SHOW_SECONDS)
            champion = self._scorer.active.champion
            if champion is not None:
                fenced = {name: member.breaker.fenced for name, member in champion.members.items()}
                self._scorer.metrics.show_fenced(fenced)


def serve(
    settings: Settings,
    host: str,
    port: int,
    catalogue: Path | None = None,
    ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve until the process is told to stop; requests under way are finished.

    Args:
        settings: those in force.
        host: address to listen on.
        port: port to listen on, 0 for a free one.
        catalogue: folder of the products; default: the data set of the champion's tournament.
        ready: called with the URL once it is bound.

    Raises:
        UsageError: if the address is not loopback and no API key was made.
        StoreError: if the address cannot be bound.
    """
    import uvicorn

    check_address(settings, host)
    hide_process()
    # A registry that is out of reach must not hold up the follower for minutes
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    rig = build_scorer(settings, catalogue=catalogue, open_to_all=is_loopback(host), hosts=own_names(settings, host))
    sys.setswitchinterval(SWITCH_SECONDS)
    protocol = limited_protocol(limits_of(settings), rig.scorer.metrics.connection_refused)
    rig.scorer.metrics.connections.set_function(lambda: len(protocol.crowd))
    config = uvicorn.Config(
        rig.app,
        http=protocol,
        ws="none",
        log_level="error",  # what is no HTTP is no news, and would fill the log
        access_log=False,
        server_header=False,
        date_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=round(settings.drain_s),
    )
    with _bound(host, port) as listening:
        ready(f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}")
        PromptServer(config).run(sockets=[listening])


def limits_of(settings: Settings) -> ConnectionLimits:
    """Return what the clients of a scorer with these settings may hold."""
    return ConnectionLimits(
        connections=settings.connections,
        per_address=settings.connections_per_address,
        proxies=settings.trusted_proxies,
        head_s=settings.head_timeout_s,
        body_s=settings.body_timeout_s,
        bodies_bytes=int(settings.bodies_mib * 2**20),
        idle_s=settings.idle_timeout_s,
    )


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise StoreError(f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --port") from error
    return listening
