"""The page at `/`, on which a person tries a query. It loads nothing, and talks to this scorer alone."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files

PAGE = (files(__package__) / "try_page.html").read_text(encoding="utf-8")


def policy_of(page: str) -> str:
    """Return the Content-Security-Policy of a page: its own script and style, and requests to where it comes from.

    Args:
        page: HTML with one script.

    Example:
        >>> policy_of("<script>x</script>").split("; ")[1]
        "script-src 'sha256-LXEWQrcmsEQBYnyp+6wy9chTD7GQPMTbAiWHF5IaSIE='"
    """
    (script,) = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


POLICY = policy_of(PAGE)
