"""The Content-Security-Policy of a page that is one file: its own script and style, requests to its own origin."""

from __future__ import annotations

import base64
import hashlib
import re


def policy_of(page: str) -> str:
    """Return the Content-Security-Policy of a page.

    Args:
        page: HTML with one script.

    Returns:
        A policy that lets this script run and no other, and styles if the page has some.

    Raises:
        ValueError: If the page has not one script.

    Example:
        >>> policy_of("<script>x</script>").split("; ")[1]
        "script-src 'sha256-LXEWQrcmsEQBYnyp+6wy9chTD7GQPMTbAiWHF5IaSIE='"
    """
    (script,) = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    style = "style-src 'unsafe-inline'; " if "<style>" in page else ""
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; {style}connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
