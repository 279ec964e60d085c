"""Health check of every role: exit 0 if HEALTH_URL answers with status 200."""

from __future__ import annotations

import os
import sys
import urllib.request


def main() -> None:
    """Send one request; print any error in one line."""
    address = os.environ.get("HEALTH_URL", "")
    if not address:
        sys.exit("HEALTH_URL is not set: this role has no health check")
    try:
        with urllib.request.urlopen(address, timeout=4) as answer:
            status = answer.status
    except OSError as error:
        sys.exit(f"{address}: {error}")
    if status != 200:
        sys.exit(f"{address} answered {status}")


if __name__ == "__main__":
    main()
