"""Addresses of pages that people open in a browser: Prefect's, and our page of a review where the server has it."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

import httpx
from prefect.logging import get_logger
from prefect.runtime import flow_run as here
from prefect.settings import (
    PREFECT_API_SSL_CERT_FILE,
    PREFECT_API_TLS_INSECURE_SKIP_VERIFY,
    PREFECT_API_URL,
    PREFECT_UI_URL,
)

from esci_tournament.registry.addresses import REVIEW_PAGE_HEADER, REVIEW_PATH
from esci_tournament.registry.errors import StoreError

PROBE_S = 5.0  # a server that takes longer is taken for one without our page


def has_api() -> bool:
    """Return whether a Prefect API is configured; the one that Prefect starts by itself has no UI to review in."""
    return bool(PREFECT_API_URL.value())


def ui_link(path: str) -> str:
    """Return an address in Prefect's newer UI, the one whose forms can be filled in.

    Args:
        path: Path below the UI's `v2/`, such as `runs/flow-run/<id>`.

    Returns:
        The address; "" without a server.
    """
    base = PREFECT_UI_URL.value() or (PREFECT_API_URL.value() or "").rstrip("/").removesuffix("/api")
    return f"{base.rstrip('/')}/v2/{path}" if base else ""


def run_link(flow_run: str | None) -> str:
    """Return the address of a flow run in Prefect's UI; "" when there is none."""
    return ui_link(f"runs/flow-run/{flow_run}") if flow_run else ""


def review_link(flow_run: str | None) -> str:
    """Return the address at which a review is read and answered.

    Args:
        flow_run: Prefect's id of the run that waits; None when there is none.

    Returns:
        Our page where the server has it (`tournament up`, the images), else the run in Prefect's UI; "" without a run.
    """
    if not flow_run or not has_api():
        return ""
    base = (PREFECT_UI_URL.value() or (PREFECT_API_URL.value() or "").rstrip("/").removesuffix("/api")).rstrip("/")
    # Below a prefix a proxy hands on Prefect's pages alone
    ours = urlsplit(base).path == "" and _has_review_page((PREFECT_API_URL.value() or "").rstrip("/"))
    return f"{base}{REVIEW_PATH}/{flow_run}" if ours else run_link(flow_run)


_with_page: set[str] = set()  # servers that were found to have it


def _has_review_page(api: str) -> bool:
    """Tell whether the server of an API has our page; one that does not answer has none."""
    if api not in _with_page:
        insecure, bundle = PREFECT_API_TLS_INSECURE_SKIP_VERIFY.value(), PREFECT_API_SSL_CERT_FILE.value()
        verify = False if insecure else ssl.create_default_context(cafile=bundle or None)
        with suppress(httpx.HTTPError, ValueError):
            found = httpx.get(f"{api.removesuffix('/api')}{REVIEW_PATH}", timeout=PROBE_S, verify=verify)
            if found.headers.get(REVIEW_PAGE_HEADER):
                _with_page.add(api)
    return api in _with_page


def this_run() -> dict[str, str]:
    """Return `Flow run` -> the address in Prefect's UI of the flow run that calls; {} outside of one."""
    link = run_link(here.id) if here.id else ""
    return {"Flow run": link} if link else {}


def if_answered(find: Callable[[], dict[str, str]]) -> dict[str, str]:
    """Return the addresses that `find` looks up in MLflow; {} when it does not answer, for a message can do without."""
    try:
        return find()
    except StoreError as error:
        get_logger("reviews").warning("a message goes without its links to MLflow: %s", error)
        return {}
