"""Prefect's server as this product runs it: `python -m esci_tournament.deployments.prefect_server start ...`.

Some things differ from `prefect server start`. Its scheduler works: Prefect 3.8.8 inserts scheduled runs with a key
`state`, which SQLAlchemy before 2.1 ignored. SQLAlchemy 2.1 asks the hybrid property of that name for a setter and
refuses the whole statement, so that no schedule ever starts a run while the server itself goes on.
:func:`pass_over_state` gives the property a setter that does nothing.

And it is protected against pages of other sites: only its own pages may speak to it, and only under its own names.
It has a page on which a review is read and answered (`review_page.py`). With `--login-folder FOLDER` it also takes the
one-time logins whose hashes are there.
"""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from esci_tournament.deployments.browser_login import BrowserLogin
from esci_tournament.deployments.connections import limited_protocol
from esci_tournament.deployments.crowd import ConnectionLimits
from esci_tournament.deployments.lasting_output import outlast_output
from esci_tournament.deployments.listening import PromptServer
from esci_tournament.deployments.review_page import ReviewPage
from esci_tournament.deployments.same_origin import SameOrigin, own_hosts, own_origins
from esci_tournament.deployments.stack.access import ALLOWED_ORIGINS, SERVER_AUTH
from esci_tournament.registry.secrecy import hide_process

# Workers and the UI share an address, and the bodies of runs are larger than those of pages
LIMITS = ConnectionLimits(
    connections=2000, per_address=None, reserved_paths=frozenset({"/api/health"}), bodies_bytes=256 * 2**20, body_s=60.0
)

# FastAPI's pages about the API load their scripts from another host, into the origin whose pages keep the password.
FOREIGN_SCRIPTS = ("/docs", "/docs/oauth2-redirect", "/redoc")


def pass_over_state() -> None:
    """Make bulk inserts of flow runs ignore the key `state`; Prefect inserts the states in a separate statement."""
    from prefect.server.database.orm_models import FlowRun
    from sqlalchemy import inspect
    from sqlalchemy.ext.hybrid import hybrid_property

    state = inspect(FlowRun).all_orm_descriptors["state"]
    if isinstance(state, hybrid_property) and getattr(state, "bulk_dml_setter", None) is None:
        state.bulk_dml_setter = lambda _class, _mapping, _value: None


def protect(app: ASGIApp, host: str, port: int, logins: Path | None) -> ASGIApp:
    """Return Prefect's application behind what keeps foreign pages out and lets one-time logins in.

    Prefect's own services speak to the application itself and not to what is returned.

    Args:
        app: Prefect's application, not started yet.
        host: What it will listen on.
        port: What it will listen on.
        logins: Folder with the hashes of one-time logins; None for no such logins.
    """
    auth = os.environ.get(SERVER_AUTH, "")
    inner: ASGIApp = ReviewPage(_without_foreign_scripts(app))
    if logins is not None and auth:
        inner = BrowserLogin(inner, logins, auth)
    origins = own_origins(host, port, os.environ)
    return SameOrigin(inner, origins, own_hosts(host, origins))


def _without_foreign_scripts(app: ASGIApp) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].rstrip("/") in FOREIGN_SCRIPTS:
            closed = PlainTextResponse("this page would load scripts of another host; /openapi.json has it all\n", 404)
            await closed(scope, receive, send)
        else:
            await app(scope, receive, send)

    return answer


def main(arguments: Sequence[str]) -> None:
    """Run `prefect server` with these arguments."""
    hide_process()
    outlast_output()
    own = argparse.ArgumentParser(prog="prefect_server", add_help=False, allow_abbrev=False)
    own.add_argument("--host", default=os.environ.get("PREFECT_SERVER_API_HOST", "127.0.0.1"))
    own.add_argument("--port", type=int, default=int(os.environ.get("PREFECT_SERVER_API_PORT", "4200")))
    own.add_argument("--login-folder", type=Path)
    own.add_argument("--workers", type=int, default=1)
    own.add_argument("--background", "-b", action="store_true")
    said, rest = own.parse_known_args(arguments)
    if said.workers > 1 or said.background:
        sys.exit("prefect_server: --workers and --background start Prefect's own server, without what is added here")
    if rest[:1] == ["start"]:
        rest += ["--host", said.host, "--port", str(said.port)]
        # Prefect reads its settings when it is first imported, which the next lines do.
        os.environ.setdefault(ALLOWED_ORIGINS, ",".join(own_origins(said.host, said.port, os.environ)))
        pass_over_state()
        run = uvicorn.run

        def run_protected(app: ASGIApp, **options: Any) -> None:
            options.setdefault("http", limited_protocol(LIMITS))
            run(protect(app, said.host, said.port, said.login_folder), **options)

        uvicorn.run = run_protected  # type: ignore[assignment]
        sys.modules["uvicorn.main"].Server = PromptServer  # type: ignore[attr-defined]  # whom uvicorn.run starts
    sys.argv = ["prefect", "server", *rest]
    runpy.run_module("prefect", run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
