"""Addresses as they may be printed, stored or sent: without their passwords."""

from __future__ import annotations

import re
from typing import Any

_PASSWORD = re.compile(r"(://[^/\s:@]*):[^\s/]*@")


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
