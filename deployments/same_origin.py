"""What stands before Prefect's server: only its own pages may speak to it, and only under its own names.

Prefect's server answers every origin and every name by default. A page of another site, open in the engineer's
browser, could then send requests to a server on loopback, or have a name of its own resolve to this machine.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from esci_tournament.deployments.stack.access import ALLOWED_ORIGINS
from esci_tournament.deployments.stack.services import is_loopback, reachable

# Variables in which an operator names addresses under which browsers see the server; Prefect has two names for each.
PUBLIC = ("PREFECT_UI_URL", "PREFECT_SERVER_UI_API_URL", "PREFECT_UI_API_URL")
_ORIGINS = (ALLOWED_ORIGINS, "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS")
_POLICY_VIOLATION = 1008  # RFC 6455

# The page keeps the password: no script of another host may run in it, and nothing may be sent to one.
PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-eval' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "connect-src 'self'{more}; img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)


def own_origins(host: str, port: int, given: Mapping[str, str]) -> tuple[str, ...]:
    """Return the origins that a server may be spoken to from: its own, and those that its operator names.

    Args:
        host: What it listens on.
        port: What it listens on.
        given: Environment variables.

    Example:
        >>> own_origins("0.0.0.0", 4200, {"PREFECT_UI_URL": "https://prefect.example.com/ui"})
        ('http://127.0.0.1:4200', 'https://prefect.example.com')
    """
    named = [part.strip() for variable in _ORIGINS for part in given.get(variable, "").split(",")]
    named += [given.get(variable, "") for variable in PUBLIC]
    found = [f"http://{reachable(host)}:{port}"]
    for address in named:
        parts = urlsplit(address)
        if address == "*" or (parts.scheme and parts.netloc):
            found.append(address if address == "*" else f"{parts.scheme}://{parts.netloc}".lower())
    return tuple(dict.fromkeys(found))


def own_hosts(host: str, origins: Collection[str]) -> frozenset[str] | None:
    """Return the names that a server on loopback answers to; None, any name, for one that other machines reach.

    Args:
        host: What it listens on.
        origins: Its origins, see :func:`own_origins`.
    """
    if not is_loopback(host):
        return None
    public = {urlsplit(origin).hostname for origin in origins if origin != "*"}
    return frozenset({"127.0.0.1", "localhost", "::1", host.lower(), *(name for name in public if name)})


class SameOrigin:
    """ASGI middleware: refuses requests and websockets of foreign pages and under foreign names with 403.

    Args:
        app: The application behind it.
        origins: Origins that are let in beside the one of the very request; "*" lets all in.
        hosts: Names that `Host` may have, with any port: a tunnel has its own; None lets all in.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str], hosts: Collection[str] | None) -> None:
        self.app, self.origins, self.hosts = app, origins, hosts
        # The UI may be told an address of the API that is not the one of its page: `localhost` and 127.0.0.1.
        also = [*origins, *(origin.replace("http", "ws", 1) for origin in origins if origin != "*")]
        self._policy = PAGE_POLICY.format(more="".join(f" {one}" for one in also))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or open one websocket."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        if complaint := self.complaint(scope):
            await _refuse(complaint, scope, receive, send)
            return

        async def protect(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._add_headers(MutableHeaders(scope=message))
            await send(message)

        await self.app(scope, receive, protect)

    def complaint(self, scope: Scope) -> str:
        """Return why a request is refused, "" for one that is let in."""
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        if self.hosts is not None and _name(host) not in self.hosts:
            return "this server does not go by that name; use the address that `tournament up` prints"
        origin = headers.get("origin")
        if origin is not None:
            known = "*" in self.origins or origin.lower() in self.origins
            if not known and origin.lower() not in (f"http://{host}", f"https://{host}"):
                return "a page of another origin may not speak to this server"
        elif headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not _follows_link(scope, headers):
            return "a page of another site may link to this server's pages, and nothing else"
        return ""

    def _add_headers(self, headers: MutableHeaders) -> None:
        headers.setdefault("X-Content-Type-Options", "nosniff")
        headers.setdefault("Referrer-Policy", "same-origin")
        if headers.get("content-type", "").startswith("text/html"):
            headers.setdefault("Content-Security-Policy", self._policy)
            headers.setdefault("X-Frame-Options", "DENY")


def _name(host: str) -> str:
    """Return the name in a `Host` header, without its port and the brackets of an IPv6 address."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _follows_link(scope: Scope, headers: Headers) -> bool:
    """Tell whether somebody follows a link, in a message or on another page, to a page of the UI."""
    return (
        scope["type"] == "http"
        and scope["method"] in ("GET", "HEAD")
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
        and scope["path"] != "/api"
        and not scope["path"].startswith("/api/")
    )


async def _refuse(complaint: str, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":  # before it is accepted: the server answers the handshake with 403
        await receive()
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": complaint})
        return
    await PlainTextResponse(complaint + "\n", 403, {"Cache-Control": "no-store"})(scope, receive, send)
