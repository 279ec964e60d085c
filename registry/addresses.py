"""Addresses of databases in files, and addresses as they may be printed, stored or sent: without their passwords."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

# Where our Prefect server has the page of a review, below its root, and the header by which it is known
REVIEW_PATH = "/tournament/review"
REVIEW_PAGE_HEADER = "X-Tournament-Review"

_PASSWORD = re.compile(r"(://[^/\s:@]*):[^\s/]*@")


def sqlite_address(path: Path | str, driver: str = "sqlite") -> str:
    """Return the SQLAlchemy URL of a SQLite file.

    SQLAlchemy decodes percent escapes, and a question mark begins options. All other characters stay as they are, so
    that an address is the same as in earlier releases wherever those worked.

    Args:
        path: The file.
        driver: Scheme of the URL.

    Returns:
        The URL.

    Example:
        >>> sqlite_address("/srv/100%25 of it?/ledger.db")
        'sqlite:////srv/100%2525 of it%3F/ledger.db'
    """
    return f"{driver}:///{str(path).replace('%', '%25').replace('?', '%3F')}"


def sqlite_file(address: str) -> Path | None:
    """Return the file that a SQLAlchemy URL of SQLite names, None for another URL or a database in memory.

    Example:
        >>> sqlite_file("sqlite:////srv/100%2525/ledger.db?timeout=3")
        PosixPath('/srv/100%25/ledger.db')
    """
    scheme, slashes, rest = address.partition(":///")
    path = unquote(rest.partition("?")[0])
    return Path(path) if slashes and scheme.startswith("sqlite") and path and path != ":memory:" else None


def without_password(text: str) -> str:
    """Return a text in which the passwords of addresses are `***`.

    Args:
        text: An address, or any text that holds some.

    Example:
        >>> without_password("postgresql+psycopg://mlflow:secret@db/mlflow")
        'postgresql+psycopg://mlflow:***@db/mlflow'
    """
    return _PASSWORD.sub(r"\1:***@", text)


def masked(content: Any) -> Any:
    """Return JSON-able content with the passwords of all addresses in it masked, in lists and dicts as well."""
    if isinstance(content, str):
        return without_password(content)
    if isinstance(content, dict):
        return {key: masked(value) for key, value in content.items()}
    return [masked(value) for value in content] if isinstance(content, list | tuple) else content
