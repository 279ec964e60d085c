"""The scorer that the client is tried on is the real application; see tests/deployments/scorer/conftest.py."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import httpx
import uvicorn

from esci_tournament_client import AsyncClient, Client
from tests.deployments.scorer.conftest import Stand, catalogue, fitted, products, stand

__all__ = ["catalogue", "fitted", "products", "stand"]

T = TypeVar("T")


def ask(stand: Stand, work: Callable[[AsyncClient], Coroutine[Any, Any, T]], **more: Any) -> T:
    """Return what a coroutine returns that is given a client of the application."""

    async def go() -> T:
        async with AsyncClient("http://scorer", transport=httpx.ASGITransport(stand.app), **more) as client:
            return await work(client)

    return stand.run(go())


def served(stand: Stand, work: Callable[[Client], T], **more: Any) -> T:
    """Return what a function returns that is called, in a thread, with a client of the application on a socket."""

    async def go() -> T:
        server = uvicorn.Server(uvicorn.Config(stand.app, log_level="error", lifespan="off"))
        with socket.create_server(("127.0.0.1", 0)) as listening:
            running = asyncio.create_task(server.serve(sockets=[listening]))
            try:
                with Client(f"http://127.0.0.1:{listening.getsockname()[1]}", **more) as client:
                    return await asyncio.to_thread(work, client)
            finally:
                server.should_exit = True
                await running

    return stand.run(go())
