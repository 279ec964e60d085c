"""uvicorn with a listening socket that keeps up with a burst of connections.

libuv, and so uvloop, accepts one connection in each round of the event loop. A round in which hundreds of requests are
read or refused takes a tenth of a second; meanwhile the kernel's queue of connections fills up, and what no longer fits
is dropped: its client tries again after one second, then after two more. So the queue is as long as the kernel allows,
and several connections are accepted in each round, through copies of the listening socket.
"""

from __future__ import annotations

import asyncio
import os
import socket

import uvicorn

AT_ONCE = 16  # connections that uvloop accepts in a round
_QUEUE = 2**16 - 1  # connections that wait to be accepted; the kernel takes less where its own limit is lower


class PromptServer(uvicorn.Server):
    """uvicorn's server; see the module."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; called by uvicorn.

        Args:
            sockets: that are bound already; else the host and the port of the configuration.
        """
        await super().startup(sockets)
        if not self.started:
            return
        loop = asyncio.get_running_loop()
        one_by_one = not isinstance(loop, asyncio.BaseEventLoop)  # asyncio's own accepts up to `backlog` in a round
        for server in list(self.servers):
            for listening in server.sockets:
                for _ in range(AT_ONCE - 1 if one_by_one else 0):
                    copy = socket.socket(fileno=os.dup(listening.fileno()))
                    another = await loop.create_server(self._protocol, sock=copy, backlog=self.config.backlog)
                    self.servers.append(another)
                # Last, because every create_server sets the length of this queue
                with socket.socket(fileno=os.dup(listening.fileno())) as same:
                    same.listen(_QUEUE)

    def _protocol(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
