"""The page that a one-time link opens: it trades the link's token for the password, which Prefect's UI then keeps.

Prefect's UI, both versions of it, takes the password from the browser's local storage and sends it with each request.
The page itself holds no secret. Its script sends the token, and only the answer to that has the password: whatever
fetches a link to show a preview of it neither sees the password nor uses the token up.
"""

from __future__ import annotations

import base64
import json
from http import HTTPStatus
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from esci_tournament.deployments.page_policy import policy_of
from esci_tournament.deployments.stack.logins import LOGIN_PATH, LOGIN_S, START_PAGE, take_login

STORAGE_KEY = "prefect-password"  # where Prefect's UI looks, version 1 and 2; base64 of the whole auth string
LARGEST_BYTES = 1_000

VOID = (
    f"This link has been used, or it is older than {LOGIN_S / 60:.0f} minutes. "
    "A new one is printed by: tournament login (for the home of this server)"
)

_SCRIPT = """
const words = document.getElementById("words"), on = document.getElementById("on");
const [token, path] = location.hash.slice(1).split(":");
history.replaceState(null, "", location.pathname);
let to = location.origin + START;
try {
  const page = new URL(decodeURIComponent(path || START), location.origin);
  if (page.origin === location.origin) to = page.href;
} catch {}
fetch(location.pathname, {
  method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({token}),
}).then(async (answer) => {
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.detail);
  localStorage.setItem(KEY, content.password);
  location.replace(to);
}).catch((error) => {
  words.textContent = error.message;
  on.href = to;
  on.hidden = false;
});
"""
SCRIPT = f"const KEY = {json.dumps(STORAGE_KEY)}, START = {json.dumps(START_PAGE)};{_SCRIPT}"
PAGE = f"""<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>Log in</title>
<h1>Log in</h1>
<p id="words" role="status">One moment.</p>
<noscript><p>Prefect's pages, and this one, need JavaScript.</p></noscript>
<p><a id="on" hidden>Go on to Prefect, if this browser is logged in already or you know the password</a></p>
<script>{SCRIPT}</script>
</html>
"""
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": policy_of(PAGE),
}


class BrowserLogin:
    """ASGI middleware that answers at :data:`LOGIN_PATH`, and hands on everything else.

    Args:
        app: The application behind it, Prefect's.
        folder: Where the hashes of valid tokens are.
        auth: What a browser is given for a token, `name:password`.
    """

    def __init__(self, app: ASGIApp, folder: Path, auth: str) -> None:
        self.app, self.folder = app, folder
        self._password = base64.b64encode(auth.encode()).decode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"] != LOGIN_PATH:
            await self.app(scope, receive, send)
            return
        answer = await self._answer(Request(scope, receive))
        answer.headers.update(HEADERS)
        await answer(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if request.method in ("GET", "HEAD"):
            return HTMLResponse(PAGE)
        if request.method != "POST":
            return JSONResponse({"detail": "GET or POST"}, HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD, POST"})
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > LARGEST_BYTES:
                return JSONResponse({"detail": "too long for a token"}, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        if take_login(self.folder, _token(body)):
            return JSONResponse({"password": self._password})
        return JSONResponse({"detail": VOID}, HTTPStatus.FORBIDDEN)


def _token(body: bytes) -> str:
    try:
        said = json.loads(body)["token"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return said if isinstance(said, str) else ""
